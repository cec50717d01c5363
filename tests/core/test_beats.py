"""Signs of life of processes that work in one folder."""

from __future__ import annotations

from indexnet.core.beats import Beats


def _of(folder, rank):
    beats = Beats(folder)
    beats.rank = rank
    return beats


def test_a_process_that_waits_sees_that_another_goes_on(tmp_path):
    waits, works = _of(tmp_path, 0), _of(tmp_path, 1)
    waits.beat()
    assert waits.look()
    assert not waits.look()
    for _ in range(3):
        works.beat()
        assert not waits.look()  # until it is shown
        assert works.look()
        assert waits.look()
        assert not waits.look()
    assert works.look()  # the other's, which it had no need to look at
    assert not works.look()


def test_files_that_are_removed_are_no_beats_and_stay_away(tmp_path):
    first, second = _of(tmp_path, 0), _of(tmp_path, 1)
    for beats in (first, second, first):
        beats.beat()
        beats.look()
    first.look()
    assert len(list(tmp_path.iterdir())) == 2
    first.forget()
    assert not first.look()
    second.beat()
    assert second.look()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    beats = _of(tmp_path / "gone", 0)
    beats.beat()
    assert beats.look()
    assert not beats.look()
    beats.forget()
