import sys

import pytest

from fastst.errors import run_command
from fastst.info import main
from fastst.ops.backends import BACKENDS, why_not


def test_names_every_backend_and_whether_it_can_run(monkeypatch, capsys):
    monkeypatch.delenv("FASTST_BACKEND", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    main()
    said = capsys.readouterr().out
    for name in BACKENDS:
        reason = why_not(name)
        assert f"{name} " in said
        assert reason is None or f"no: {reason}" in said
    assert "operations run on: cpu" in said


def test_a_wrong_choice_in_the_environment_is_an_error_in_words(monkeypatch, capsys):
    monkeypatch.setenv("FASTST_BACKEND", "gpu")
    monkeypatch.setattr(sys, "argv", ["info"])
    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 2
    assert "error: unknown backend 'gpu'" in capsys.readouterr().err
