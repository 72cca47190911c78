"""Times: every test is one contender in one group. The group's contenders, and those of the groups of its family, are checked and timed together, in
interleaved rounds, when the first test of them runs; each test then hands its own rounds to pytest-benchmark."""

import dataclasses

import pytest

from bench.contenders import CONTENDERS
from bench.timing import Group, Outcome, row_info, run_groups
from bench.works import WORKS
from fastst.cpu.memory import keep_freed_memory


def pytest_generate_tests(metafunc):
    groups = metafunc.config.groups
    rows = [(group, name) for group in groups for name in group.contenders]
    metafunc.parametrize(("group", "contender"), rows, ids=[f"{_identifier(group)}-{name}" for group, name in rows])


def _identifier(group: Group) -> str:
    """A name that `-k` can read."""
    return group.name.replace(" + ", "+").replace("=", "").replace(" ", "-")


@pytest.fixture(scope="session")
def outcomes(request):
    """Outcomes of a group; only those of the latest family are kept."""
    latest: dict[Group, dict[str, Outcome]] = {}

    def of(group: Group) -> dict[str, Outcome]:
        if group not in latest:
            latest.clear()
            if request.config.keeps_freed_memory:
                # Whole models as the commands run them: keeping all, the largest with a message for every edge would take more than 24 GB.
                keep_freed_memory(of_any_size=not issubclass(WORKS[group.work], WORKS["inference"]))
            chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]  # `-k` may have left some out
            together = [other for other in request.config.groups if other == group or (other.family is not None and other.family == group.family)]
            contenders = {member: tuple(params["contender"] for params in chosen if params.get("group") == member) for member in together}
            contenders = {member: names for member, names in contenders.items() if names}
            found = run_groups(
                [dataclasses.replace(member, contenders=names) for member, names in contenders.items()],
                request.config.getoption("--seconds-per-group"),
                timed=not request.config.getoption("benchmark_disable"),
            )
            latest.update(zip(contenders, found, strict=True))
        return latest[group]

    return of


def test_time(benchmark, request, outcomes, group: Group, contender: str):
    outcome = outcomes(group)[contender]
    benchmark.skipped = outcome.skipped is not None or outcome.disagreement is not None or benchmark.disabled
    if outcome.skipped is not None:
        request.config.skipped_rows.append({**row_info(group, contender, outcome), "group": group.name, "reason": outcome.skipped})
        pytest.skip(f"{CONTENDERS[contender].label}: {outcome.skipped}")
    if outcome.disagreement is not None:
        pytest.fail(f"{contender} is not timed: {outcome.disagreement}")
    if benchmark.disabled:
        return
    benchmark._mode = "interleaved"
    benchmark.group = group.name
    benchmark.extra_info.update(row_info(group, contender, outcome))
    stats = benchmark._make_stats(iterations=1)
    for seconds in outcome.seconds:
        stats.update(seconds)
