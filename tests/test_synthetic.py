"""The synthetic walker: counts and names of CASIA-B, repeatable walks, a human gait, and a class signal that is where it should be."""

import numpy as np
import pytest

from fastst.data.noise import stream
from fastst.data.synthetic import FEMALE, MALE, SyntheticPoses, synthetic_walks
from fastst.layouts import LAYOUTS

INDEX = LAYOUTS["coco17"].index


def same(a, b):
    return np.array_equal(a, b, equal_nan=True)


def clean_walk(view, sequence="nm-01", frames=None, seed=0, person="001"):
    """One walk without estimator noise, and what is left of gaps and outliers interpolated away.  # [T, 17, 2]"""
    walks = synthetic_walks(people=4, seed=seed, frames=frames, noise=0.0)
    pose = walks.poses[walks.names.index(f"{person}-{sequence}-{view}")].copy()
    time = np.arange(len(pose))
    for joint in range(17):
        for axis in range(2):
            seen = ~np.isnan(pose[:, joint, axis])
            pose[:, joint, axis] = np.interp(time, time[seen], pose[seen, joint, axis])
    return pose


def test_counts_and_names_are_those_of_casia_b():
    walks = synthetic_walks()
    assert len(walks) == len(walks.poses) == 13_640
    assert len(set(walks.names)) == 13_640
    assert walks.names[0] == "001-nm-01-000"
    assert "012-nm-01-090" in walks.names
    assert walks.names[-1] == "124-cl-02-180"
    sex = dict(zip(walks.subjects, walks.attributes["label"], strict=True))
    assert sorted(sex) == [f"{i:03d}" for i in range(1, 125)]
    assert sum(label == "male" for label in sex.values()) == 92
    assert sum(label == "female" for label in sex.values()) == 32
    conditions = walks.attributes["condition"]
    assert [conditions.count(c) for c in ("nm", "bg", "cl")] == [124 * 11 * n for n in (6, 2, 2)]
    for name, subject, condition, view in zip(walks.names, walks.subjects, walks.attributes["condition"], walks.attributes["view"], strict=True):
        assert name.split("-")[0] == subject
        assert name.split("-")[1] == condition
        assert name.split("-")[3] == view


def test_fewer_people_keep_the_proportion_and_both_sexes():
    for people, males in ((2, 1), (3, 2), (31, 23), (62, 46)):
        walks = synthetic_walks(people=people, walks_per_person=1)
        assert walks.attributes["label"].count("male") == males, people
        assert len(walks) == people


def test_sexes_are_shuffled_over_the_people():
    labels = synthetic_walks(walks_per_person=1).attributes["label"]
    assert labels != synthetic_walks(walks_per_person=1, seed=1).attributes["label"]
    first_women = labels[:62].count("female")
    assert 6 <= first_women <= 26


def test_fewer_walks_are_spread_over_views_and_conditions():
    walks = synthetic_walks(people=8, walks_per_person=11)
    assert len(walks) == 88
    chosen = []
    for person in sorted(set(walks.subjects)):
        rows = [i for i, subject in enumerate(walks.subjects) if subject == person]
        assert len({walks.attributes["view"][i] for i in rows}) == 11
        assert {walks.attributes["condition"][i] for i in rows} == {"nm", "bg", "cl"}
        chosen.append(tuple(walks.names[i][4:] for i in rows))
    assert len(set(chosen)) == 8
    assert set(chosen[0]) < {name[4:] for name in synthetic_walks(people=2).names}


def test_a_walk_does_not_depend_on_what_was_asked_before():
    first, second = synthetic_walks(people=5, seed=3), synthetic_walks(people=5, seed=3)
    order = [400, 7, 7, 123, 0]
    forwards = [first.poses[i] for i in order]
    backwards = [second.poses[i] for i in reversed(order)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert same(first.poses[-1], second.poses[549])
    assert all(same(a, b) for a, b in zip(first.poses[3:5], (second.poses[3], second.poses[4]), strict=True))


def test_a_subset_of_walks_shows_the_same_walks():
    everything, some = synthetic_walks(people=5), synthetic_walks(people=5, walks_per_person=7)
    for i in (0, 11, 34):
        assert same(some.poses[i], everything.poses[everything.names.index(some.names[i])])


def test_walks_are_those_of_earlier_versions():
    """Every view and condition, both sexes: what was measured on a seed can be measured again. A change here has to be one that is wanted."""
    walks = synthetic_walks(people=5, walks_per_person=11, seed=4)
    assert set(walks.attributes["label"]) == {"male", "female"}
    assert len({*walks.attributes["condition"], *walks.attributes["view"]}) == 14
    joints = np.arange(1.0, 35).reshape(17, 2)  # so that no two can stand for each other
    assert sum(np.nansum(pose * joints) / pose.size for pose in walks.poses) == pytest.approx(133690.34543163, rel=1e-7)
    assert sum((walks.poses.confidences(i) @ joints[:, 0]).mean() for i in range(55)) == pytest.approx(12296.74664434, rel=1e-7)


def test_walks_differ_by_seed_person_sequence_and_view():
    walks, other = synthetic_walks(people=3), synthetic_walks(people=3, seed=1)
    pick = [walks.poses[walks.names.index(name)] for name in ("001-nm-01-090", "002-nm-01-090", "001-nm-02-090", "001-nm-01-072")]
    pick.append(other.poses[other.names.index("001-nm-01-090")])
    for i, a in enumerate(pick):
        for b in pick[:i]:
            n = min(len(a), len(b))
            assert np.nanmedian(np.abs(a[:n] - b[:n])) > 0.5


def test_random_streams_share_no_numbers():
    """Streams whose counters lie side by side would repeat each other, shifted by a few numbers."""
    keys = [(0, 2), (1, 0), (1, 1), (2, 0, 0), (2, 0, 1), (2, 1, 0), (3, 0, 0), (4, 0, 0), (4, 0, 1), (4, 1, 0)]
    drawn = np.concatenate([stream(7, *key).random(5000) for key in keys])
    assert len(np.unique(drawn)) == len(keys) * 5000
    assert len(np.unique(np.concatenate([drawn[:5000], stream(7, *keys[0]).random(5000)]))) == 5000


def test_shapes_types_confidences_and_place_in_the_image():
    walks = synthetic_walks(walks_per_person=2)
    assert walks.layout is LAYOUTS["coco17"]
    assert isinstance(walks.poses, SyntheticPoses)
    missing, inside = [], []
    for i in range(0, 248, 3):
        pose, confidence = walks.poses[i], walks.poses.confidences(i)
        assert pose.dtype == confidence.dtype == np.float32
        assert pose.shape == (len(pose), 17, 2)
        assert confidence.shape == pose.shape[:2]
        assert confidence.min() >= 0
        assert confidence.max() <= 1
        gone = np.isnan(pose).any(-1)
        assert np.array_equal(gone, confidence == 0)
        missing.append(gone.mean(0))
        seen = pose[~gone]
        inside.append(((seen >= 0) & (seen < [320, 240])).all(-1).mean())
        assert 50 <= len(pose) <= 135
    assert np.mean(inside) > 0.99
    rate = np.mean(missing, axis=0)  # [17]
    ends = [INDEX(f"{side}_{joint}") for side in ("left", "right") for joint in ("wrist", "ankle")]
    assert rate[ends].min() > 0.02
    assert rate[ends].max() < 0.10
    assert 0.0005 < np.delete(rate, ends).mean() < 0.02


def test_natural_lengths_range_and_slow_down_with_the_path():
    walks = synthetic_walks(walks_per_person=3)
    lengths = np.array([len(walks.poses[i]) for i in range(len(walks))])
    assert lengths.min() < 70
    assert lengths.max() > 100
    view = np.array(walks.attributes["view"])
    assert lengths[view == "090"].mean() + 10 < lengths[view == "000"].mean()


@pytest.mark.parametrize("frames", [1, 60, 3000])
def test_asked_for_frames_are_given_exactly_and_stay_in_view(frames):
    walks = synthetic_walks(people=2, walks_per_person=2, frames=frames)
    for i in range(4):
        pose = walks.poses[i]
        assert pose.shape == (frames, 17, 2)
        middle = np.nanmean(pose, axis=1)
        assert np.all((middle > [120, 80]) & (middle < [200, 170]))


def test_ankles_swing_at_the_persons_cadence_and_against_each_other():
    pose = clean_walk("090", frames=1000)
    distance = pose[:, INDEX("left_ankle"), 0] - pose[:, INDEX("right_ankle"), 0]
    spectrum = np.abs(np.fft.rfft((distance - distance.mean()) * np.hanning(1000)))
    strides_per_second = np.argmax(spectrum) * 25 / 1000
    steps_per_minute = 2 * 60 * strides_per_second
    low, high = MALE.cadence[0] - 3.5 * MALE.cadence[1], FEMALE.cadence[0] + 3.5 * FEMALE.cadence[1]
    assert low < steps_per_minute < high
    walks = synthetic_walks(people=4, frames=1000)
    meant = walks.poses._people[0].measures["cadence"]
    assert abs(steps_per_minute - meant) < 0.1 * meant
    left = pose[:, INDEX("left_ankle"), 0] - pose[:, INDEX("left_hip"), 0]
    right = pose[:, INDEX("right_ankle"), 0] - pose[:, INDEX("right_hip"), 0]
    assert np.corrcoef(left, right)[0, 1] < -0.7


def test_body_moves_like_a_walking_human():
    pose = clean_walk("090", frames=500)  # faces the left edge of the image

    def part(name, axis):
        return pose[:, INDEX(name), axis]

    for side, other in (("left", "right"), ("right", "left")):
        arm = part(f"{side}_wrist", 0) - part(f"{side}_shoulder", 0)
        leg = part(f"{side}_ankle", 0) - part(f"{side}_hip", 0)
        opposite = part(f"{other}_ankle", 0) - part(f"{other}_hip", 0)
        assert np.corrcoef(arm, leg)[0, 1] < -0.5
        assert np.corrcoef(arm, opposite)[0, 1] > 0.5
        hip, knee, ankle = (pose[:, INDEX(f"{side}_{joint}")] for joint in ("hip", "knee", "ankle"))
        thigh, shank = knee - hip, ankle - knee
        bend = thigh[:, 0] * shank[:, 1] - thigh[:, 1] * shank[:, 0]  # negative: the shank points further backwards than the thigh
        assert np.mean(bend < 1e-3 * np.abs(bend).max()) > 0.97
    heights = [np.percentile(part("nose", 1), 99), np.median(part("left_hip", 1)), np.percentile(part("left_knee", 1), 1)]
    assert heights[0] < heights[1] < heights[2]
    lower = np.sign(part("left_ankle", 1) - part("right_ankle", 1))  # which foot is nearer to the ground
    assert 0.3 < np.mean(lower > 0) < 0.7
    assert 12 < np.count_nonzero(np.diff(lower)) < 200


@pytest.mark.parametrize(("view", "grows"), [("000", True), ("180", False)])
def test_walker_grows_while_coming_closer(view, grows):
    pose = clean_walk(view)
    size = pose[:, INDEX("left_hip"), 1] - pose[:, INDEX("nose"), 1]
    ratio = size[-10:].mean() / size[:10].mean()
    assert (ratio > 1.5) if grows else (ratio < 0.67)


def test_left_and_right_are_where_the_camera_sees_them():
    for view, left_is_right in (("000", True), ("180", False)):
        pose = clean_walk(view)
        assert np.all((pose[:, INDEX("left_shoulder"), 0] > pose[:, INDEX("right_shoulder"), 0]) == left_is_right)


def test_bag_stills_one_arm_and_coat_makes_hips_uncertain():
    walks = synthetic_walks(people=12, frames=200, seed=5)
    swing, wander = {}, {}
    for condition in ("nm", "bg", "cl"):
        ratios, noise = [], []
        for i, name in enumerate(walks.names):
            if f"-{condition}-01-090" in name:
                pose = walks.poses[i]
                arms = [np.nanstd(pose[:, INDEX(f"{s}_wrist"), 0] - pose[:, INDEX(f"{s}_shoulder"), 0]) for s in ("left", "right")]
                ratios.append(max(arms) / min(arms))
                noise.append(np.nanmedian(np.abs(np.diff(pose[:, INDEX("right_hip")], n=2, axis=0))))
        swing[condition], wander[condition] = np.mean(ratios), np.mean(noise)
    assert swing["bg"] > 1.4 * swing["nm"]
    assert swing["cl"] < 1.4 * swing["nm"]
    assert wander["cl"] > 1.3 * wander["nm"]


def test_noise_grows_with_its_parameter():
    def roughness(noise):
        pose = synthetic_walks(people=2, walks_per_person=1, noise=noise).poses[0]
        return np.nanmedian(np.abs(np.diff(pose, n=2, axis=0)))

    assert roughness(4.0) > 2 * roughness(1.0) > 2 * roughness(0.0)


def flipped(walks):
    """The same walks with every person's sex exchanged."""
    twin = synthetic_walks(people=8, walks_per_person=20, planted=walks.poses.planted)
    twin.poses._male = ~twin.poses._male
    return twin


@pytest.mark.parametrize("planted", [["left_ankle", "right_ankle"], ["nose"], []])
def test_planted_joints_alone_depend_on_the_sex(planted):
    walks = synthetic_walks(people=8, walks_per_person=20, planted=planted)
    assert walks.poses.planted == tuple(planted)
    twin = flipped(walks)
    inside = [INDEX(joint) for joint in planted]
    outside = [joint for joint in range(17) if joint not in inside]
    for i in range(0, 160, 13):
        a, b = walks.poses[i], twin.poses[i]
        assert same(a[:, outside], b[:, outside])
        assert same(a[..., 0], b[..., 0])
        assert same(walks.poses.confidences(i), twin.poses.confidences(i))
        if planted:
            assert 1.0 < np.nanmax(np.abs(a[:, inside, 1] - b[:, inside, 1])) < 30


def test_planted_bodies_are_drawn_from_one_distribution():
    """The sexes differ in stature by two standard deviations, but not when the signal is planted."""

    def statures(planted):
        walks = synthetic_walks(walks_per_person=1, planted=planted)
        male = np.array([label == "male" for label in walks.attributes["label"]])
        stature = np.array([person.measures["stature"] for person in walks.poses._people])
        return stature[male].mean() - stature[~male].mean()

    assert statures(None) > 0.09
    assert abs(statures(["nose"])) < 0.045


def test_planted_signal_points_up_in_men_and_down_in_women():
    plain, planted = (synthetic_walks(people=20, walks_per_person=4, planted=joints) for joints in ([], ["left_knee"]))
    assert plain.attributes == planted.attributes
    lifted = {"male": [], "female": []}
    for i, label in enumerate(planted.attributes["label"]):
        lifted[label].append(np.nanmean((plain.poses[i] - planted.poses[i])[:, INDEX("left_knee"), 1]))
    assert np.mean(lifted["male"]) > 1
    assert np.mean(lifted["female"]) < -1
    assert synthetic_walks(people=2).poses.planted is None


def test_sexes_differ_but_overlap_as_much_as_the_sources_say():
    walks = synthetic_walks(walks_per_person=1, spread=1)
    male = np.array([label == "male" for label in walks.attributes["label"]])
    for name in ("shoulder_hip_ratio", "arm_swing", "pelvic_obliquity", "trunk_lean", "cadence"):
        value = np.array([person.measures[name] for person in walks.poses._people])
        effect = abs(value[male].mean() - value[~male].mean()) / value[male].std()
        assert 0.1 < effect < 3, name
        assert value[male].max() > value[~male].min(), name
        assert value[male].min() < value[~male].max(), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"people": 1}, "people is 1; expected 2 to 124"),
        ({"people": 125}, "people is 125; expected 2 to 124"),
        ({"walks_per_person": 0}, "walks_per_person is 0; expected 1 to 110"),
        ({"walks_per_person": 111}, "walks_per_person is 111; expected 1 to 110"),
        ({"frames": 0}, "frames is 0; expected 1 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"noise": -0.5}, "noise is -0.5; expected 0 or more"),
        ({"spread": float("nan")}, "spread is nan; expected 0 or more"),
        ({"planted": ["left_toe"]}, "no joint 'left_toe'; it has nose, left_eye"),
    ],
)
def test_errors_say_what_came_and_what_is_expected(arguments, said):
    with pytest.raises(ValueError, match=said):
        synthetic_walks(**arguments)


def test_a_walk_that_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        synthetic_walks(people=2, walks_per_person=1).poses[2]
