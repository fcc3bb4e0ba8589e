"""Records: small versioned values; two writers never both win, and what has expired is not there."""

from __future__ import annotations

from functools import partial
from itertools import chain

import pytest

from dayjob.clock import SECOND
from dayjob.store.contract import Store
from dayjob.store.records import Record
from tests.contract.racing import at_once
from tests.contract.scene import Scene


class TestRecords:
    def test_what_was_never_written_is_absent(self, scene: Scene) -> None:
        assert scene.store.read("setting", "x", now=scene.now) is None
        assert list(scene.store.list("setting", now=scene.now)) == []
        assert scene.store.erase("setting", "x") is False

    def test_each_write_has_the_next_version(self, scene: Scene) -> None:
        versions = [scene.store.write("setting", "x", b"%d" % n, now=scene.now) for n in range(3)]

        assert versions == [1, 2, 3]
        assert scene.store.read("setting", "x", now=scene.now) == Record("setting", "x", b"2", 3)

    @pytest.mark.parametrize("value", [b"", bytes(range(256)), b"x" * 1_000_000], ids=["empty", "every byte", "1 MB"])
    def test_values_are_kept_untouched(self, scene: Scene, value: bytes) -> None:
        scene.store.write("setting", "x", value, now=scene.now)

        record = scene.store.read("setting", "x", now=scene.now)
        assert record is not None
        assert record.value == value

    def test_kinds_and_keys_are_apart(self, scene: Scene, other: Store) -> None:
        names = [("a", "x"), ("a", "y"), ("b", "x"), ("a", "X"), ("a", "x y"), ("a", "caf\u00e9'\"")]
        for n, (kind, key) in enumerate(names):
            assert scene.store.write(kind, key, b"%d" % n, now=scene.now) == 1

        for n, (kind, key) in enumerate(names):
            record = other.read(kind, key, now=scene.now)
            assert record is not None
            assert record.value == b"%d" % n

    def test_a_list_is_by_key_and_of_one_kind(self, scene: Scene) -> None:
        for key in ("b", "c", "a"):
            scene.store.write("schedule", key, key.encode(), now=scene.now)
        scene.store.write("setting", "aa", b"", now=scene.now)

        assert list(scene.store.list("schedule", now=scene.now)) == [
            Record("schedule", key, key.encode(), 1) for key in ("a", "b", "c")
        ]

    def test_a_write_over_another_version_is_refused_and_changes_nothing(self, scene: Scene) -> None:
        scene.store.write("setting", "x", b"1", now=scene.now)
        scene.store.write("setting", "x", b"2", now=scene.now)

        for wrong in (0, 1, 3):
            assert scene.store.write("setting", "x", b"late", expected=wrong, now=scene.now) is None
        assert scene.store.read("setting", "x", now=scene.now) == Record("setting", "x", b"2", 2)
        assert scene.store.write("setting", "x", b"3", expected=2, now=scene.now) == 3

    def test_expected_zero_means_it_must_not_exist(self, scene: Scene) -> None:
        assert scene.store.write("once", "k", b"a", expected=1, now=scene.now) is None
        assert scene.store.write("once", "k", b"a", expected=0, now=scene.now) == 1
        assert scene.store.write("once", "k", b"b", expected=0, now=scene.now) is None

    def test_of_two_writers_at_once_one_wins(self, scene: Scene, other: Store) -> None:
        for n in range(20):
            stores = (scene.store, other)
            versions = at_once(*[partial(s.write, "once", f"k{n}", b"", expected=0, now=scene.now) for s in stores])

            assert sorted(versions, key=str) == [1, None]

    def test_no_blind_write_is_lost_among_many(self, scene: Scene, other: Store) -> None:
        def write(store: Store) -> list[int | None]:
            return [store.write("setting", "x", b"", now=scene.now) for _ in range(20)]

        versions = chain(*at_once(partial(write, scene.store), partial(write, other)))

        assert sorted(versions, key=str) == sorted(range(1, 41), key=str)

    def test_an_expired_record_is_absent_to_the_microsecond(self, scene: Scene) -> None:
        scene.store.write("once", "k", b"a", ttl=60.0, now=scene.now)
        record = scene.store.read("once", "k", now=scene.now)
        assert record is not None
        assert record.expires_at == scene.now + 60 * SECOND

        scene.advance(59.999999)
        assert scene.store.read("once", "k", now=scene.now) is not None
        assert len(scene.store.list("once", now=scene.now)) == 1
        scene.advance(0.000002)
        assert scene.store.read("once", "k", now=scene.now) is None
        assert len(scene.store.list("once", now=scene.now)) == 0

    def test_an_expired_record_may_be_written_anew_as_if_it_had_never_been(self, scene: Scene) -> None:
        for _ in range(3):
            scene.store.write("once", "k", b"a", ttl=60.0, now=scene.now)
        scene.advance(61)

        assert scene.store.write("once", "k", b"b", expected=3, now=scene.now) is None
        assert scene.store.write("once", "k", b"b", expected=0, now=scene.now) == 1

    def test_a_write_without_ttl_ends_the_old_one(self, scene: Scene) -> None:
        scene.store.write("once", "k", b"a", ttl=60.0, now=scene.now)
        scene.store.write("once", "k", b"b", now=scene.now)
        scene.advance(3600)

        assert scene.store.read("once", "k", now=scene.now) == Record("once", "k", b"b", 2)

    def test_a_refused_write_does_not_lengthen_a_life(self, scene: Scene) -> None:
        scene.store.write("once", "k", b"a", ttl=60.0, now=scene.now)
        scene.store.write("once", "k", b"b", expected=7, ttl=3600.0, now=scene.now)
        scene.advance(61)

        assert scene.store.read("once", "k", now=scene.now) is None

    def test_erase_takes_the_version_it_was_told_and_no_other(self, scene: Scene) -> None:
        for _ in range(2):
            scene.store.write("setting", "x", b"", now=scene.now)

        assert scene.store.erase("setting", "x", expected=1) is False
        assert scene.store.erase("setting", "x", expected=2) is True
        assert scene.store.erase("setting", "x") is False
        assert scene.store.write("setting", "x", b"", now=scene.now) == 1

    def test_erase_takes_that_key_only(self, scene: Scene) -> None:
        for kind, key in (("a", "x"), ("a", "y"), ("b", "x")):
            scene.store.write(kind, key, b"", now=scene.now)

        assert scene.store.erase("a", "x") is True
        assert [record.key for record in scene.store.list("a", now=scene.now)] == ["y"]
        assert [record.key for record in scene.store.list("b", now=scene.now)] == ["x"]

    def test_a_prune_drops_what_has_expired_and_nothing_else(self, scene: Scene) -> None:
        scene.store.write("once", "short", b"", ttl=60.0, now=scene.now)
        scene.store.write("once", "long", b"", ttl=3600.0, now=scene.now)
        scene.store.write("once", "ever", b"", now=scene.now)
        scene.advance(61)
        scene.store.prune(scene.term, [], now=scene.now)

        assert [record.key for record in scene.store.list("once", now=scene.now)] == ["ever", "long"]
