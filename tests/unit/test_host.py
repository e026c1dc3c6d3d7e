"""What a machine or container has, and the sentences where that is too little."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dmaml.common.errors import HostError
from dmaml.deploy.host import (
    ACTOR_MIB,
    MIB,
    RAY_MIB,
    is_listening,
    memory_bytes,
    own_address,
    require_memory,
    require_room,
    require_version,
    shared_memory_bytes,
)

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
STORE = 80 * MIB
UNLIMITED_V1 = "9223372036854771712"  # what version 1 says where there is no limit


def limits(folder: Path, v2: str | None, v1: str | None) -> tuple[Path, Path]:
    """Return the two limit files; None: not there."""
    for name, text in (("memory.max", v2), ("memory.limit_in_bytes", v1)):
        if text is not None:
            (folder / name).write_text(text + "\n")
    return folder / "memory.max", folder / "memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("v2", "v1", "expected"),
    [
        (str(100 * MIB), None, 100 * MIB),
        (None, str(100 * MIB), 100 * MIB),
        ("max", str(100 * MIB), 100 * MIB),
        ("max", None, MACHINE),
        (None, None, MACHINE),
        (None, UNLIMITED_V1, MACHINE),
        (str(2 * MACHINE), None, MACHINE),
        ("nonsense", None, MACHINE),
    ],
)
def test_the_memory_is_the_limit_of_the_control_group_or_the_machines(
    tmp_path: Path, v2: str | None, v1: str | None, expected: int
) -> None:
    assert memory_bytes(limits(tmp_path, v2, v1)) == expected


def test_the_shared_memory_is_the_size_of_its_file_system_not_what_is_free(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)

    assert shared_memory_bytes(tmp_path) == found.f_blocks * found.f_frsize > 0


def test_enough_is_enough() -> None:
    require_memory(100 * MIB, 100 * MIB, "Ray", "Buy more.")


def test_too_little_is_said_with_both_numbers_and_the_remedy() -> None:
    with pytest.raises(HostError) as caught:
        require_memory(100 * MIB - 1, 100 * MIB, "Ray", "Buy more.")

    # one byte too little is not "needs 100 MiB, there are 100 MiB"
    assert str(caught.value) == "Ray needs 100 MiB, there are 99 MiB. Buy more."
    assert caught.value.exit_code == 2


def test_ray_and_two_actors_fit_exactly() -> None:
    require_room((RAY_MIB + 2 * ACTOR_MIB) * MIB, STORE + 8 * MIB, STORE, num_actors=2)


def test_too_little_shared_memory_names_the_option_of_docker() -> None:
    with pytest.raises(HostError) as caught:
        require_room(64_000 * MIB, 64 * MIB, STORE, num_actors=1)

    assert str(caught.value) == (
        "Ray's object store in /dev/shm needs 88 MiB, there are 64 MiB. Raise shm_size (compose: "
        "DMAML_SHM_SIZE), or lower --object-store."
    )


def test_too_little_memory_names_the_number_of_actors() -> None:
    with pytest.raises(HostError) as caught:
        require_room(1024 * MIB, 128 * MIB, STORE, num_actors=3)

    assert str(caught.value) == (
        f"Ray with 3 actors needs {RAY_MIB + 3 * ACTOR_MIB} MiB, there are 1024 MiB. Raise the "
        "memory limit (compose: DMAML_WORKER_MEMORY, DMAML_HEAD_MEMORY), or offer fewer actors "
        "(DMAML_ACTORS_PER_WORKER)."
    )


def test_the_sentence_for_a_head_and_for_one_actor() -> None:
    for num_actors, words in ((0, "Ray needs"), (1, "Ray with 1 actor needs")):
        with pytest.raises(HostError, match=words):
            require_room(100 * MIB, 128 * MIB, STORE, num_actors)


def test_the_same_version_is_welcome() -> None:
    require_version("0.1.0", "0.1.0")


@pytest.mark.parametrize(("theirs", "named"), [("0.2.0", "0.2.0"), ("", "before 0.1")])
def test_another_version_is_refused(theirs: str, named: str) -> None:
    with pytest.raises(HostError) as caught:
        require_version("0.1.0", theirs)

    assert str(caught.value) == (
        f"this node has dmaml 0.1.0, the server {named}: results would differ. Build the images "
        "again from one checkout and start both."
    )


def test_the_own_address_is_the_one_on_the_way_to_the_server() -> None:
    assert own_address("127.0.0.1:50051") == "127.0.0.1"


def test_a_port_listens_from_listen_until_close() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        before = is_listening("127.0.0.1", port)
        listening.listen()
        meanwhile = is_listening("127.0.0.1", port)
    after = is_listening("127.0.0.1", port)

    assert (before, meanwhile, after) == (False, True, False)
