"""What the machine is made to do: whether freed memory stays with the process."""

import platform

import pytest
from support.command import python

from textcl import device

FAULTS = """
import resource, torch
from textcl.device import keep_freed_memory
{first}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(20):
    if turn == 10:  # until then what alignment cuts off is kept apart
        before = faults()
    torch.ones(2**24)  # 64 MiB
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_taken_again_without_the_system_unless_the_user_chose_otherwise():
    def faults(first: str = "", **variables: str) -> int:
        return int(python(FAULTS.format(first=first), **variables).stdout)

    plain = faults()
    assert plain > 100
    assert faults("keep_freed_memory()") < plain / 10
    assert faults("keep_freed_memory()", MALLOC_TOP_PAD_="131072") > plain / 2
    assert faults("from textcl import Encoder; Encoder.from_pretrained('bundled')") < plain / 10


COMPILED = """
import ctypes, torch
from textcl.device import keep_few_products, product_by_onednn
{first}
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "e", "f", "g", "used", "h", "i")]
glibc = ctypes.CDLL(None)
glibc.mallinfo2.restype = Info
weight = torch.ones(64, 64)
def used(first, last):
    before = glibc.mallinfo2().used
    for rows in range(first, last):
        product_by_onednn(torch.ones(rows, 64), weight)
    return glibc.mallinfo2().used - before
used(1, 200)
print(used(200, 800))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_products_of_many_shapes_do_not_make_the_process_grow_unless_the_user_chose_otherwise():
    def growth(first: str = "", **variables: str) -> int:
        return int(python(COMPILED.format(first=first), **variables).stdout)

    kept = {"LRU_CACHE_CAPACITY": "1024", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
    many = growth("keep_few_products()", **kept)
    assert many > 5_000_000
    # an encoder that was loaded in the process of the tests has set them for its children
    unset = f"import os; [os.environ.pop(name, None) for name in {[*kept]}]; "
    assert growth(f"{unset}keep_few_products()") < many / 10
    assert growth(f"{unset}from textcl import Encoder; Encoder.from_pretrained('bundled')") < many / 10


KEPT = """
import torch
from textcl.device import KeptMemory, _resident, keep_freed_memory
keep_freed_memory()
kept = KeptMemory(most=2**27)
def given_back(tensors):
    alive = [torch.ones(2**20) for _ in range(tensors)]  # 4 MiB each
    pins = [torch.ones(2**10) for _ in range(2)]  # what lies on top is in use
    del alive
    before = _resident()
    kept.look()
    return (before - _resident()) >> 20
print(given_back(20), given_back(100))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_is_kept_is_given_back_once_the_process_has_grown():
    few, many = map(int, python(KEPT).stdout.split())
    assert few < 20
    assert many > 300


STEADY = """
import ctypes
from textcl.device import SteadyMemory, _resident, keep_freed_memory
keep_freed_memory()
glibc = ctypes.CDLL(None)
glibc.malloc.restype, glibc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
glibc.realloc.restype, glibc.realloc.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
def step(turn):  # like a step of training that needs a little more than all earlier ones
    size = 2**18 + 2**12 * turn
    pieces = [glibc.malloc(size) for _ in range(40)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for piece in pieces:
        glibc.realloc(piece, 2**12)  # the beginning stays in use, as a cache or a log does
for _ in range(2**12):
    glibc.malloc(2**18)  # fills what the imports have left free; memory that is not written is not resident
memory, sizes = SteadyMemory(), []
for turn in range(40):
    step(turn)
    sizes.append(_resident() >> 10)
    if {looks}:
        memory.look()
live = (2**18 + 40 * 2**12) * 40 >> 10  # of the largest step
print(max(sizes) - sizes[0], live)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_process_that_trains_keeps_the_size_that_a_step_needs():
    """No piece fits where an earlier step's were, so that each step takes memory of its own until some is returned."""

    def growth(looks: bool) -> float:
        """How much the process grew, in times what the largest step needs."""
        grown, live = map(int, python(STEADY.format(looks=looks)).stdout.split())
        return grown / live

    assert growth(looks=False) > 12
    assert growth(looks=True) < 8


def test_a_need_that_was_measured_high_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that needs 100 after each return, but is looked at 0 to 19 later, and grows by 2 between looks."""
    size, sizes, late = 100.0, [], iter([0, 19, 7, 15, 3, 11] * 100)

    def given_back() -> None:
        nonlocal size
        size = 100.0 + next(late) - 2

    monkeypatch.setattr(device, "_resident", lambda: size)
    monkeypatch.setattr(device, "give_back_freed_memory", given_back)
    memory = device.SteadyMemory()
    for _ in range(500):
        memory.look()
        size += 2
        sizes.append(size)
    assert max(sizes[250:]) <= 121, "a late look is the need only until the next one"
    assert sum(sizes[250:]) <= 1.02 * sum(sizes[:250])
