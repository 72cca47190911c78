"""The table of predictions: as a file and back, put together, and by person."""

from pathlib import Path

import numpy as np
import pytest

from fastst.errors import UserError
from fastst.runs.outcomes import Outcomes, read_outcomes, together, write_outcomes

NAMES = ["a, b", "c"]
TWO = "fold,walk,subject,class,predicted,probability_a,probability_b\n"


def three_walks() -> Outcomes:
    probabilities = np.array([[1 / 3, 2 / 3], [0.9, 0.1], [0.5, 0.5]])
    return Outcomes(NAMES, ["1", "1", "1+2"], ["w 1", 'w "2"', "w3"], ["p", "p", "q"], np.array([0, 0, 1]), probabilities)


def test_there_and_back(tmp_path: Path):
    made = three_walks()
    write_outcomes(tmp_path / "predictions.csv", made)
    text = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert text[0] == 'fold,walk,subject,class,predicted,"probability_a, b",probability_c'
    assert text[3] == '1+2,w3,q,c,"a, b",0.5,0.5'
    again = read_outcomes(tmp_path / "predictions.csv")
    assert (again.class_names, again.folds, again.walks, again.subjects) == (made.class_names, made.folds, made.walks, made.subjects)
    assert (again.classes == made.classes).all()
    assert (again.probabilities == made.probabilities).all()


def test_a_checksum_tells_of_a_change_that_makes_sense(tmp_path: Path):
    path = tmp_path / "predictions.csv"
    checksum = write_outcomes(path, three_walks())
    assert len(read_outcomes(path, checksum)) == 3
    path.write_text(path.read_text().replace("0.9,0.1", "0.8,0.2"))
    assert len(read_outcomes(path)) == 3
    with pytest.raises(UserError, match=r"predictions\.csv is damaged, or was changed: its checksum isn't that in the summary; copy it again"):
        read_outcomes(path, checksum)


def test_by_person():
    people = three_walks().of_people()
    assert people.subjects == ["p", "q"]
    np.testing.assert_allclose(people.probabilities[0], [(1 / 3 + 0.9) / 2, (2 / 3 + 0.1) / 2])
    assert people.predicted.tolist() == [0, 0]
    rows = three_walks().person_rows()
    assert [(row["subject"], row["class"], row["predicted"], row["walks"]) for row in rows] == [("p", "a, b", "a, b", 2), ("q", "c", "a, b", 1)]


def test_somebody_who_walks_in_two_classes_is_two_rows():
    made = three_walks()
    made.classes[1] = 1
    assert [(row["subject"], row["class"], row["walks"]) for row in made.person_rows()] == [("p", "a, b", 1), ("p", "c", 1), ("q", "c", 1)]
    assert made.metrics()["people"] == 2


def test_together_and_chosen():
    both = together([three_walks(), three_walks()])
    assert len(both) == 6
    assert both.chosen([5, 0]).walks == ["w3", "w 1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a table of predictions"),
        ("walk,subject\n", "no column 'fold'"),
        ("fold,walk,subject,class,predicted\n1,w,p,a,a\n", "no column probability_<class>"),
        ("fold,walk,subject,class,predicted,probability_a\n", "no walk"),
        ("fold,walk,subject,class,predicted,probability_a\n1,w,p,a,a,1\n1,w,p,b,a,1\n", "line 3 is not one"),
        ("fold,walk,subject,class,predicted,probability_a\n1,w,p,a,a,x\n", "line 2 is not one"),
        ("fold,walk,subject,class,predicted,probability_a\n1,w,p,a\n", "line 2 is not one"),
        (f"{TWO}1,w,p,a,a,0.6,0.4\n1,w,p,a,a,0.6,0.6\n", r"line 3 .*sum to 1, these are 0\.6, 0\.6 and sum to 1\.2"),
        (f"{TWO}1,w,p,a,a,1.5,-0.5\n", "line 2 .*probabilities are 0 or more"),
        (f"{TWO}1,w,p,a,a,nan,0.5\n", "line 2 .*probabilities are 0 or more"),
        (f"{TWO}1,w,p,a,b,0.6,0.4\n", "line 2 .*predicted is 'b', which is not the likeliest class"),
        (f"{TWO}1,w,p,a,c,0.6,0.4\n", "line 2 .*predicted is 'c', which is not the likeliest class"),
    ],
)
def test_what_is_no_such_table_is_refused(text: str, words: str, tmp_path: Path):
    (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_outcomes(tmp_path / "predictions.csv")


def test_a_table_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"predictions\.csv doesn't exist; a finished run of fastst\.train has one"):
        read_outcomes(tmp_path / "predictions.csv")
