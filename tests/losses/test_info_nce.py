"""InfoNCE: slow oracles from the equations, closed forms, gradients, invariances, tiles, two processes."""

import math
import types

import pytest
import torch
from oracles import slow_info_nce, slow_nt_xent
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from textcl import distributed
from textcl.errors import InputError
from textcl.losses.info_nce import info_nce, nt_xent
from textcl.modules import InfoNCE

CHUNKS = [None, 1, 2, 3, 5, 100]


def random(rows, dim=3, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# One-way calls with every option: 3 local rows of 5, at offset 1.
QUERY_IDS = torch.tensor([7, 8, 9])
KEY_IDS = torch.tensor([8, 7, 8, 9, 4])  # column 0 doubles row 1's text
OTHER_KEY_IDS = torch.tensor(
    [11, 10, 11, 12, 8]
)  # keys are other texts than queries: 0 doubles row 1's positive, 4 row 1
HARD_IDS = torch.tensor([9, 7, 3, 3, 3])  # 0 doubles row 2; 1 is row 0's own hard negative and doubles row 0
EXTRA_IDS = torch.tensor([5, 9])

# Queries, keys and hard negatives. Rows 0 and 1 share a query, rows 2 and 4 a key. Hard negative 3 is the key of row 0.
SHARED = (torch.tensor([1, 1, 2, 3, 4]), torch.tensor([5, 6, 7, 8, 7]), torch.tensor([9, 10, 11, 5, 12]))

# Warm, but for the first, so that every column weighs in the sum.
ONE_WAY = {
    "plain": {},
    "warm": {"temperature": 0.5},
    "dot": {"similarity": "dot", "temperature": 0.7},
    "hard": {"hard_negatives": random(5, seed=3), "temperature": 0.5},
    "hard weighted": {"hard_negatives": random(5, seed=3), "hard_negative_log_weight": 1.3, "temperature": 0.5},
    "extra": {"extra_negatives": random(2, seed=4), "temperature": 0.5},
    "masked": {"query_ids": QUERY_IDS, "key_ids": KEY_IDS, "temperature": 0.5},
    "masked, two texts": {"query_ids": QUERY_IDS, "key_ids": OTHER_KEY_IDS, "temperature": 0.5},
    "masked, hard and extra of unknown text": {
        "hard_negatives": random(5, seed=3),
        "extra_negatives": random(2, seed=4),
        "query_ids": QUERY_IDS,
        "key_ids": KEY_IDS,
        "temperature": 0.5,
    },
    "all": {
        "hard_negatives": random(5, seed=3),
        "hard_negative_log_weight": -0.8,
        "extra_negatives": random(2, seed=4),
        "temperature": 0.4,
        "query_ids": QUERY_IDS,
        "key_ids": KEY_IDS,
        "hard_negative_ids": HARD_IDS,
        "extra_ids": EXTRA_IDS,
    },
    "masked pairs": {
        "hard_negatives": random(5, seed=3),
        "query_ids": SHARED[0][1:4],
        "key_ids": SHARED[1],
        "hard_negative_ids": SHARED[2],
        "all_query_ids": SHARED[0],
        "temperature": 0.5,
    },
    "lone keys": {"keys_are_negatives": False, "extra_negatives": random(2, seed=4), "temperature": 0.5},
    "lone keys, others' hard negatives": {
        "keys_are_negatives": False,
        "hard_negatives": random(5, seed=3),
        "hard_negative_log_weight": -math.inf,
        "temperature": 0.5,
    },
    "lone keys, masked": {
        "keys_are_negatives": False,
        "hard_negatives": random(5, seed=3),
        "hard_negative_log_weight": -math.inf,
        "extra_negatives": random(2, seed=4),
        "temperature": 0.4,
        "query_ids": QUERY_IDS,
        "key_ids": KEY_IDS,
        "hard_negative_ids": HARD_IDS,
        "extra_ids": EXTRA_IDS,
    },
}
NT_XENT = {
    "plain": {},
    "dot": {"similarity": "dot", "temperature": 0.7},
    "masked": {
        "first_ids": torch.tensor([1, 2, 2, 3, 1]),
        "second_ids": torch.tensor([1, 2, 2, 3, 1]),
        "temperature": 0.5,
    },
    "masked, two texts": {
        "first_ids": torch.tensor([1, 2, 3, 4, 5]),
        "second_ids": torch.tensor([6, 7, 3, 1, 7]),
        "temperature": 0.5,
    },
    "masked pairs": {"first_ids": SHARED[0], "second_ids": SHARED[1], "pairs": True, "temperature": 0.5},
}


def one_way_inputs():
    keys = random(5, seed=1)
    return random(3, seed=2), keys


def nt_xent_inputs():
    all_first, all_second = random(5, seed=1), random(5, seed=2)
    return all_first[1:4], all_second[1:4], all_first, all_second


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("options", ONE_WAY.values(), ids=ONE_WAY)
def test_one_way_is_the_equation(options, chunk_size):
    queries, keys = one_way_inputs()
    loss = info_nce(queries, keys, offset=1, chunk_size=chunk_size, **options)
    assert loss.item() == pytest.approx(slow_info_nce(queries, keys, offset=1, **options), rel=1e-12)


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("options", NT_XENT.values(), ids=NT_XENT)
def test_nt_xent_is_the_equation(options, chunk_size):
    inputs = nt_xent_inputs()
    loss = nt_xent(*inputs, offset=1, chunk_size=chunk_size, **options)
    assert loss.item() == pytest.approx(slow_nt_xent(*inputs, offset=1, **options), rel=1e-12)


def test_masking_changes_the_loss():
    """The comparison with the equation would pass on ids that mask nothing; these do mask."""
    queries, keys = one_way_inputs()
    plain = info_nce(queries, keys, offset=1, temperature=0.5)
    for name in ("masked", "masked, two texts"):
        assert info_nce(queries, keys, offset=1, **ONE_WAY[name]) < plain - 1e-3
    plain = nt_xent(*nt_xent_inputs(), offset=1, temperature=0.5)
    for name in ("masked", "masked, two texts"):
        assert nt_xent(*nt_xent_inputs(), offset=1, **NT_XENT[name]) < plain - 1e-3
    lone = ONE_WAY["lone keys, masked"]
    unmasked = {name: value for name, value in lone.items() if not name.endswith("_ids")}
    assert info_nce(queries, keys, offset=1, **lone) < info_nce(queries, keys, offset=1, **unmasked) - 1e-3


def test_a_lone_key_without_negatives_is_found_for_certain():
    """MoCo's first step: nothing is in the queue yet."""
    queries, keys = (tensor.requires_grad_() for tensor in one_way_inputs())
    for chunk_size in (None, 2):
        loss = info_nce(queries, keys, offset=1, keys_are_negatives=False, chunk_size=chunk_size)
        assert loss.item() == pytest.approx(0.0, abs=1e-12)
        for gradient in torch.autograd.grad(loss, (queries, keys)):
            assert gradient.abs().max() < 1e-12


def test_sentence_transformers_computes_the_same():
    """An independent implementation, for what both have; it has no NT-Xent, but one view's half of it at a time."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    first, second, hard = (random(6, seed=seed) for seed in range(3))
    other = MultipleNegativesRankingLoss(nn.Identity(), scale=2.0)
    assert InfoNCE(0.5)(first, second).item() == pytest.approx(
        other.compute_loss_from_embeddings([first, second], None).item(), rel=1e-12
    )
    assert InfoNCE(0.5)(first, second, hard_negatives=hard).item() == pytest.approx(
        other.compute_loss_from_embeddings([first, second, hard], None).item(), rel=1e-12
    )
    half = MultipleNegativesRankingLoss(nn.Identity(), scale=2.0, directions=("query_to_doc", "query_to_query"))
    halves = [half.compute_loss_from_embeddings(views, None).item() for views in ([first, second], [second, first])]
    assert InfoNCE(0.5, topology="nt_xent")(first, second).item() == pytest.approx(sum(halves) / 2, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_closed_forms(chunk_size):
    n, tau = 16, 0.5
    same, eye = torch.ones(n, 4, dtype=torch.float64), torch.eye(2 * n, dtype=torch.float64)
    rows, queue = eye[:n], eye[n:]
    options = {"temperature": tau, "chunk_size": chunk_size}

    def check(total, count, expected):
        assert total.item() / count == pytest.approx(expected, abs=1e-10)

    check(nt_xent(same, same, same, same, **options), 2 * n, 3.4339872044851463)  # ln 31
    check(nt_xent(rows, rows, rows, rows, **options), 2 * n, math.log(1 + (2 * n - 2) * math.exp(-1 / tau)))
    check(info_nce(same, same, **options), n, math.log(n))
    check(info_nce(rows, rows, **options), n, math.log(1 + (n - 1) * math.exp(-1 / tau)))
    # MoCo: one positive and a queue of n, orthogonal to the query, or equal to it
    check(info_nce(rows[:1], rows[:1], extra_negatives=queue, **options), 1, math.log(1 + n * math.exp(-1 / tau)))
    check(info_nce(same[:1], same[:1], extra_negatives=same, **options), 1, math.log(n + 1))
    # own hard negative equal to the query, with weight alpha = e^w; all others orthogonal
    weighted = info_nce(
        rows[:1], rows, hard_negatives=rows, hard_negative_log_weight=0.7, temperature=tau, chunk_size=chunk_size
    )
    check(weighted, 1, math.log(1 + math.exp(0.7) + 2 * (n - 1) * math.exp(-1 / tau)))


# ---------------------------------------------------------------------------------------------------------------------
# Gradients


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("options", ONE_WAY.values(), ids=ONE_WAY)
def test_one_way_gradient(options, chunk_size):
    names = [name for name in ("hard_negatives", "extra_negatives") if name in options]
    fixed = {name: value for name, value in options.items() if name not in (*names, "temperature")}
    temperature = torch.tensor(options.get("temperature", 0.3), dtype=torch.float64)

    def loss(queries, keys, temperature, *negatives):
        given = dict(zip(names, negatives, strict=True))
        return info_nce(queries, keys, offset=1, temperature=temperature, chunk_size=chunk_size, **fixed, **given)

    inputs = [*one_way_inputs(), temperature, *(options[name] for name in names)]
    assert torch.autograd.gradcheck(loss, [tensor.clone().requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("options", NT_XENT.values(), ids=NT_XENT)
def test_nt_xent_gradient(options, chunk_size):
    fixed = {name: value for name, value in options.items() if name != "temperature"}
    temperature = torch.tensor(options.get("temperature", 0.3), dtype=torch.float64)

    def loss(*inputs):
        return nt_xent(*inputs[:4], offset=1, temperature=inputs[4], chunk_size=chunk_size, **fixed)

    inputs = [tensor.clone().requires_grad_() for tensor in (*nt_xent_inputs(), temperature)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_gradient_is_softmax_minus_one_hot():
    queries, keys = one_way_inputs()
    queries.requires_grad_()
    info_nce(queries, keys, offset=1, temperature=0.7, similarity="dot").backward()
    softmax = (queries.detach() @ keys.T / 0.7).softmax(1)
    expected = (softmax - torch.eye(5, dtype=torch.float64)[1:4]) @ keys / 0.7
    torch.testing.assert_close(queries.grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_detached_keys_get_no_gradient_and_queries_the_same(chunk_size):
    queries, keys = (tensor.requires_grad_() for tensor in one_way_inputs())
    info_nce(queries, keys.detach(), offset=1, chunk_size=chunk_size).backward()
    alone = queries.grad.clone()
    assert keys.grad is None
    queries.grad = None
    info_nce(queries, keys, offset=1, chunk_size=chunk_size).backward()
    torch.testing.assert_close(queries.grad, alone, rtol=0, atol=1e-12)
    assert keys.grad.abs().min() > 0


def test_the_tiled_form_says_that_it_has_no_second_gradient():
    queries, keys = (tensor.requires_grad_() for tensor in one_way_inputs())
    with pytest.raises(RuntimeError, match="no second gradient"):
        torch.autograd.grad(info_nce(queries, keys, chunk_size=2), queries, create_graph=True)


# ---------------------------------------------------------------------------------------------------------------------
# Tiles


def tiled_and_direct(call, inputs):
    results = []
    for chunk_size in (None, *range(1, 17), 100):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        loss = call(leaves, chunk_size)
        (3 * loss).backward()  # the incoming gradient is not one
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    return results


def test_tiles_give_the_loss_and_gradient_of_the_direct_form():
    ids = torch.arange(13) % 5
    known = {"query_ids": ids[4:11], "key_ids": ids}

    def one_way(leaves, chunk_size, hard_negative_log_weight=0.9, keys_are_negatives=True):
        queries, keys, hard, extra, temperature = leaves
        return info_nce(
            queries,
            keys,
            offset=4,
            hard_negatives=hard,
            extra_negatives=extra,
            temperature=temperature,
            hard_negative_ids=ids.flip(0),
            extra_ids=torch.tensor([3, 9, 0]),
            chunk_size=chunk_size,
            hard_negative_log_weight=hard_negative_log_weight,
            keys_are_negatives=keys_are_negatives,
            **known,
        )

    def lone_keys(leaves, chunk_size):
        return one_way(leaves, chunk_size, hard_negative_log_weight=-math.inf, keys_are_negatives=False)

    def both_views(leaves, chunk_size):
        first, second, all_first, all_second, temperature = leaves
        return nt_xent(
            first,
            second,
            all_first,
            all_second,
            offset=4,
            temperature=temperature,
            first_ids=ids,
            second_ids=ids,
            chunk_size=chunk_size,
        )

    tau = torch.tensor(0.2, dtype=torch.float64)
    one_way_leaves = [random(7, 4, 1), random(13, 4, 2), random(13, 4, 3), random(3, 4, 4), tau]
    nt_xent_leaves = [random(7, 4, 1), random(7, 4, 2), random(13, 4, 3), random(13, 4, 4), tau]
    for call, leaves in ((one_way, one_way_leaves), (lone_keys, one_way_leaves), (both_views, nt_xent_leaves)):
        direct, *tiled = tiled_and_direct(call, leaves)
        for result in tiled:
            for a, b in zip(result, direct, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def largest_tensor(rows, chunk_size, topology):
    queries, keys = (random(rows, 4, seed).requires_grad_() for seed in (0, 1))
    ids = torch.arange(rows)
    with LargestTensor() as largest:
        if topology == "one_way":
            options = {"hard_negatives": random(rows, 4, 2), "hard_negative_log_weight": 1.0}
            loss = info_nce(queries, keys, query_ids=ids, key_ids=ids, chunk_size=chunk_size, **options)
        else:
            loss = nt_xent(queries, keys, queries, keys, first_ids=ids, second_ids=ids, chunk_size=chunk_size)
        loss.backward()
    assert keys.grad is not None
    return largest.elements


@pytest.mark.parametrize("topology", ["one_way", "nt_xent"])
def test_tiles_need_memory_linear_in_the_batch(topology):
    assert largest_tensor(128, 8, topology) == 2 * largest_tensor(64, 8, topology) == 2 * 128 * 4
    assert largest_tensor(128, None, topology) == 4 * largest_tensor(64, None, topology)  # the measure sees squares


def test_direct_form_never_holds_rows_by_rows_by_dim():
    assert largest_tensor(64, None, "one_way") == 64 * 128


# ---------------------------------------------------------------------------------------------------------------------
# Invariances


def test_joint_permutation_changes_nothing():
    first, second, hard = random(6, seed=1), random(6, seed=2), random(6, seed=3)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = info_nce(first, second, hard_negatives=hard, hard_negative_log_weight=0.5)
    got = info_nce(first[order], second[order], hard_negatives=hard[order], hard_negative_log_weight=0.5)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)
    got = nt_xent(first[order], second[order], first[order], second[order])
    assert got.item() == pytest.approx(nt_xent(first, second, first, second).item(), rel=1e-12)
    # the pairing itself matters
    assert abs(info_nce(first[order], second) - info_nce(first, second)) > 1e-3


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_cosine_loss_ignores_lengths_so_its_gradient_has_no_radial_part(chunk_size):
    first, second = random(6, seed=1).requires_grad_(), random(6, seed=2).requires_grad_()
    scale = random(6, 1, seed=5).exp()
    for loss in (
        lambda x, y: info_nce(x, y, chunk_size=chunk_size),
        lambda x, y: nt_xent(x, y, x, y, chunk_size=chunk_size),
    ):
        assert loss(first * scale, second / scale).item() == pytest.approx(loss(first, second).item(), rel=1e-12)
        for leaf, gradient in zip(
            (first, second), torch.autograd.grad(loss(first, second), (first, second)), strict=True
        ):
            assert gradient.abs().max() > 1e-3
            torch.testing.assert_close(
                (gradient * leaf).sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12
            )
    dot = info_nce(first * scale, second, similarity="dot")
    assert abs(dot - info_nce(first, second, similarity="dot")) > 1e-3


def test_nt_xent_and_symmetric_do_not_mind_the_order_of_views_and_one_way_does():
    first, second = random(6, seed=1), random(6, seed=2)
    for module in (InfoNCE(topology="nt_xent"), InfoNCE(symmetric=True)):
        assert module(first, second).item() == pytest.approx(module(second, first).item(), rel=1e-12)
    assert abs(InfoNCE()(first, second) - InfoNCE()(second, first)) > 1e-3
    average = (InfoNCE()(first, second) + InfoNCE()(second, first)) / 2
    assert InfoNCE(symmetric=True)(first, second).item() == pytest.approx(average.item(), rel=1e-12)


def test_a_closer_negative_is_a_higher_loss():
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
    losses = [
        info_nce(query, key, extra_negatives=torch.tensor([[math.cos(angle), math.sin(angle)]]))
        for angle in (3.0, 2.0, 1.0, 0.5)
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Precision


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize(("dtype", "expected"), [(torch.float16, torch.float32), (torch.bfloat16, torch.float32)])
def test_half_types_are_computed_in_float32(dtype, expected, chunk_size):
    first, second = random(8, seed=1).to(dtype).requires_grad_(), random(8, seed=2).to(dtype).requires_grad_()
    for loss in (
        lambda x, y: info_nce(x, y, temperature=0.01, chunk_size=chunk_size),
        lambda x, y: nt_xent(x, y, x, y, temperature=0.01, chunk_size=chunk_size),
    ):
        result = loss(first, second)
        assert result.dtype == expected
        exact = loss(first.detach().double(), second.detach().double())
        assert exact.dtype == torch.float64
        assert result.item() == pytest.approx(exact.item(), rel=1e-5)
        for gradient in torch.autograd.grad(result, (first, second)):
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_autocast_does_not_reach_inside(chunk_size):
    first, second = random(8, seed=1).float().requires_grad_(), random(8, seed=2).float()
    expected = info_nce(first, second, chunk_size=chunk_size)
    (gradient,) = torch.autograd.grad(expected, first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (first @ second.T).dtype == torch.bfloat16
        result = info_nce(first, second, chunk_size=chunk_size)
        again = info_nce(first, second, chunk_size=chunk_size)
        inside = torch.autograd.grad(again, first)[0]
    assert torch.equal(result, expected)
    assert torch.equal(torch.autograd.grad(result, first)[0], gradient)
    if chunk_size:  # its backward computes the tiles again; that of the direct form is torch's
        assert torch.equal(inside, gradient)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_of_two_types_the_wider_one_is_taken(chunk_size):
    first, second = random(8, seed=1), random(8, seed=2)
    exact = info_nce(first.float().double(), second, chunk_size=chunk_size)
    assert torch.equal(info_nce(first.float(), second, chunk_size=chunk_size), exact)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_hopeless_pairs_at_a_low_temperature_stay_finite(chunk_size):
    rows = torch.eye(4)
    queries = rows.clone().requires_grad_()
    loss = info_nce(queries, -rows, hard_negatives=rows, temperature=0.01, chunk_size=chunk_size)  # exp(200) overflows
    loss.backward()
    assert loss.item() == pytest.approx(4 * 200, abs=1e-2)
    assert queries.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------------------------
# The module


def test_module_is_the_mean_or_sum_of_the_loss():
    first, second, hard, extra = (random(6, seed=seed) for seed in range(4))
    total = info_nce(first, second, hard_negatives=hard, extra_negatives=extra, hard_negative_log_weight=0.4)
    options = {"hard_negatives": hard, "extra_negatives": extra}
    mean = InfoNCE(hard_negative_log_weight=0.4)(first, second, **options)
    assert mean.item() == pytest.approx(total.item() / 6, rel=1e-12)
    summed = InfoNCE(hard_negative_log_weight=0.4, reduction="sum")(first, second, **options)
    assert summed.item() == pytest.approx(total.item(), rel=1e-12)
    total = nt_xent(first, second, first, second)
    assert InfoNCE(topology="nt_xent")(first, second).item() == pytest.approx(total.item() / 12, rel=1e-12)
    assert InfoNCE(topology="nt_xent", reduction="sum")(first, second).item() == pytest.approx(total.item(), rel=1e-12)


@pytest.mark.parametrize("topology", ["one_way", "nt_xent"])
def test_many_scores_are_tiled_by_themselves(monkeypatch, topology):
    monkeypatch.setattr("textcl.modules.info_nce.TILED_FROM", 64 * 64)
    for rows, tiled in ((63, False), (64, True)):
        queries, keys = (torch.randn(rows, 8, dtype=torch.double).requires_grad_() for _ in range(2))
        whole = InfoNCE(topology=topology, chunk_size=10**6)(queries, keys)
        found = InfoNCE(topology=topology)(queries, keys)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
        for own, other in zip(*(torch.autograd.grad(loss, (queries, keys)) for loss in (found, whole)), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-14)
        again = InfoNCE(topology=topology)(queries, keys)
        if not tiled:
            assert torch.autograd.grad(again, queries, create_graph=True)[0].requires_grad
            continue
        with pytest.raises(RuntimeError, match="take fewer rows"):
            torch.autograd.grad(again, queries, create_graph=True)


def test_module_masks_duplicates():
    first, second, hard = random(4, seed=1), random(4, seed=2), random(4, seed=3)
    of_queries, of_keys, of_hard = torch.tensor([1, 2, 1, 3]), torch.tensor([4, 5, 6, 5]), torch.tensor([4, 7, 2, 3])
    module = InfoNCE(0.5, mask_duplicates=True)

    def slow(query_ids, key_ids, **options):
        options |= {"query_ids": query_ids, "key_ids": key_ids, "all_query_ids": query_ids}
        return slow_info_nce(first, second, temperature=0.5, **options) / 4

    one_text = module(first, second, text_id=of_queries)
    assert one_text.item() == pytest.approx(slow(of_queries, of_queries), rel=1e-12)
    two_texts = module(first, second, text_id=torch.cat([of_queries, of_keys]))
    assert two_texts.item() == pytest.approx(slow(of_queries, of_keys), rel=1e-12)
    options = {"hard_negatives": hard, "hard_negative_ids": of_hard}
    three_texts = module(first, second, hard_negatives=hard, text_id=torch.cat([of_queries, of_keys, of_hard]))
    assert three_texts.item() == pytest.approx(slow(of_queries, of_keys, **options), rel=1e-12)
    unknown = module(first, second, hard_negatives=hard, text_id=of_queries)
    assert unknown.item() == pytest.approx(slow(of_queries, of_queries, hard_negatives=hard), rel=1e-12)

    ids = torch.cat([of_queries, of_keys])
    symmetric = InfoNCE(0.5, mask_duplicates=True, symmetric=True)(first, second, text_id=ids)
    back = {"query_ids": of_keys, "key_ids": of_queries, "all_query_ids": of_keys, "temperature": 0.5}
    back = slow_info_nce(second, first, **back) / 4
    assert symmetric.item() == pytest.approx((slow(of_queries, of_keys) + back) / 2, rel=1e-12)
    views = InfoNCE(0.5, mask_duplicates=True, topology="nt_xent")(first, second, text_id=ids)
    expected = {"first_ids": of_queries, "second_ids": of_keys, "pairs": True, "temperature": 0.5}
    expected = slow_nt_xent(first, second, first, second, **expected) / 8
    assert views.item() == pytest.approx(expected, rel=1e-12)
    # off, ids change nothing
    assert torch.equal(InfoNCE(0.5)(first, second, text_id=ids), InfoNCE(0.5)(first, second))


def test_pairs_that_share_a_text_are_no_negatives_of_each_other():
    """By hand, with orthogonal columns that each query has the cosine 0 to: a row's loss is ln(1 + k / e^(1/τ)), with k
    columns left. Rows 0 and 1 share their query: key 1 and, as key 0 is also a hard negative of row 3, that one."""
    rows = torch.eye(10, dtype=torch.float64)
    queries = keys = rows[:5]
    hard = rows[5:]
    module = InfoNCE(1.0, mask_duplicates=True)
    loss = module(queries, keys, hard_negatives=hard, text_id=torch.cat(SHARED))
    # of the 4 other keys and 5 hard negatives, masked are: row 0: key 1, hard 3; 1: key 0, hard 3; 2: key 4; 4: key 2
    left = [9 - 2, 9 - 2, 9 - 1, 9, 9 - 1]
    assert loss.item() == pytest.approx(sum(math.log(1 + k / math.e) for k in left) / 5, abs=1e-12)
    # without hard negatives in both directions, the same keys and queries are masked
    both = InfoNCE(1.0, mask_duplicates=True, symmetric=True)(queries, keys, text_id=torch.cat(SHARED[:2]))
    assert both.item() == pytest.approx(sum(math.log(1 + k / math.e) for k in (3, 3, 3, 4, 3)) / 5, abs=1e-12)


def test_without_a_choice_only_pairs_are_masked():
    first, second, ids = random(5, seed=1), random(5, seed=2), torch.cat(SHARED[:2])
    on, off, by_rows = (InfoNCE(0.5, mask_duplicates=choice) for choice in (True, False, None))
    assert on(first, second, text_id=ids).item() < off(first, second, text_id=ids).item() - 1e-3
    assert torch.equal(by_rows(first, second, text_id=ids, pairs=True), on(first, second, text_id=ids))
    assert torch.equal(by_rows(first, second, text_id=ids, pairs=False), off(first, second))
    assert torch.equal(by_rows(first, second), off(first, second))
    assert torch.equal(off(first, second, text_id=ids, pairs=True), off(first, second)), "as the papers do"


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_row_of_zeros_has_cosine_0_and_a_gradient_of_ordinary_size(chunk_size):
    """By hand: query 0 is zero, so all its scores are 0. Its gradient is (mean of the unit keys − its own) / τ."""
    keys = random(4, seed=1)
    queries = torch.zeros(4, keys.shape[1], dtype=torch.float64)
    queries[1:] = random(4, seed=2)[1:]
    queries.requires_grad_()
    InfoNCE(0.5, chunk_size=chunk_size)(queries, keys).backward()
    unit = torch.nn.functional.normalize(keys, dim=1)
    expected = (unit.mean(dim=0) - unit[0]) / 0.5 / 4
    torch.testing.assert_close(queries.grad[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"topology": "nt_xent"}, {"symmetric": True}])
def test_a_batch_without_rows_has_loss_0(options):
    none = random(4)[:0].requires_grad_()
    loss = InfoNCE(mask_duplicates=True, **options)(none, none, text_id=torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0


def test_learned_temperature():
    first, second = random(6, seed=1), random(6, seed=2)
    assert list(InfoNCE().parameters()) == []
    assert InfoNCE(temperature=0.05).temperature == 0.05
    module = InfoNCE(temperature=0.05, learn_temperature=True).double()
    assert module.temperature.item() == pytest.approx(0.05, rel=1e-6)
    module(first, second).backward()
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            module.log_scale_bias.add_(sign * step)
            values.append(module(first, second).item())
            module.log_scale_bias.sub_(sign * step)
    slope = (values[0] - values[1]) / (2 * step)
    assert module.log_scale_bias.grad.item() == pytest.approx(slope, rel=1e-6)
    assert abs(slope) > 1e-3


def test_learned_temperature_stays_above_a_hundredth():
    module = InfoNCE(learn_temperature=True)
    with torch.no_grad():
        module.log_scale_bias.fill_(9.0)
    assert module.temperature.item() == pytest.approx(0.01)
    assert module.log_scale_bias.item() == 9.0  # forward changes no state
    module.after_optimizer_step()
    assert module.log_scale_bias.item() == pytest.approx(math.log(100))
    module(random(3), random(3, seed=1)).backward()
    assert module.log_scale_bias.grad.abs() > 0  # it can come back


def test_learned_temperature_has_no_weight_decay_in_transformers():
    from transformers import Trainer

    module = nn.ModuleDict({"head": nn.Linear(2, 2), "objective": InfoNCE(learn_temperature=True)})
    decayed = Trainer.get_decay_parameter_names(types.SimpleNamespace(), module)
    assert decayed == ["head.weight"]


def test_forward_changes_no_state():
    module = InfoNCE(learn_temperature=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    attributes = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    module(random(4), random(4, seed=1))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert attributes == {name: value for name, value in vars(module).items() if not name.startswith("_")}


def test_input_is_refused_with_a_sentence():
    first, second, one = random(4), random(4, seed=1), random(1)
    cases = [
        (lambda: InfoNCE()(one, one), "batch size of 2"),
        (lambda: InfoNCE(topology="nt_xent")(one, one), "batch size of 2"),
        (lambda: InfoNCE()(first, second[:3]), "as many keys"),
        (lambda: InfoNCE()(first, second, hard_negatives=one), "as many hard_negatives"),
        (lambda: InfoNCE(topology="nt_xent")(first, second, hard_negatives=second), "two views"),
        (lambda: InfoNCE(mask_duplicates=True)(first, second), "needs text_id"),
        (lambda: InfoNCE(mask_duplicates=True)(first, second, text_id=torch.arange(6)), "one number per query"),
        (lambda: InfoNCE(similarity="cosin"), "'cosine'.*'cosin'"),
        (lambda: InfoNCE(topology="two_way"), "'one_way' or 'nt_xent'"),
        (lambda: InfoNCE(reduction="none"), "'mean' or 'sum'"),
        (lambda: InfoNCE(temperature=0), "above 0"),
        (lambda: InfoNCE(temperature=0.005, learn_temperature=True), "at least 0.01"),
        (lambda: InfoNCE(topology="nt_xent", symmetric=True), "symmetric already"),
        (lambda: InfoNCE(topology="nt_xent", keys_are_negatives=False), "works only one-way"),
        (lambda: InfoNCE(chunk_size=0), "chunk_size"),
        (lambda: InfoNCE(keys_are_negatives=False)(first, second), "leaves no negatives"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words):
            call()
    # one row with a negative of its own is fine
    assert InfoNCE()(one, random(1, seed=2), hard_negatives=random(1, seed=3)).isfinite()
    assert InfoNCE()(one, random(1, seed=2), extra_negatives=random(5, seed=3)).isfinite()
    with pytest.raises(InputError, match="a single row"):  # a queue that is still empty holds no negatives
        InfoNCE()(one, random(1, seed=2), extra_negatives=one[:0])
    with pytest.raises(InputError, match="one number per query"):  # a third number is that of a hard negative
        InfoNCE(mask_duplicates=True)(first, second, text_id=torch.arange(12))
    empty = InfoNCE(keys_are_negatives=False)(one, random(1, seed=2), extra_negatives=one[:0])
    assert empty == 0, "the queue fills in the first steps"


# ---------------------------------------------------------------------------------------------------------------------
# Two processes with different data are one process with all of it


class Model(nn.Module):
    """An encoder and the objective in one module, as DistributedDataParallel wraps a method."""

    def __init__(self, options):
        super().__init__()
        self.encoder = nn.Linear(4, 3, dtype=torch.float64)
        with torch.no_grad():
            self.encoder.weight.copy_(random(3, 4, seed=20))
            self.encoder.bias.copy_(random(1, 3, seed=21)[0])
        self.objective = InfoNCE(**options).double()

    def forward(self, views, extra, ids):
        first, second, *hard = [self.encoder(view).tanh() for view in views]
        return self.objective(
            first, second, hard_negatives=hard[0] if hard else None, extra_negatives=extra, text_id=ids, pairs=True
        )


TOGETHER = {
    "plain": {},
    "dot": {"similarity": "dot"},
    "sum": {"reduction": "sum"},
    "symmetric, learned temperature": {"symmetric": True, "learn_temperature": True},
    "nt-xent": {"topology": "nt_xent"},
    "nt-xent, sum, learned temperature": {"topology": "nt_xent", "reduction": "sum", "learn_temperature": True},
    "nt-xent, masked": {"topology": "nt_xent", "mask_duplicates": True},
    "hard": {"hard_negative_log_weight": 0.6, "learn_temperature": True},
    "hard, extra, masked": {"hard_negative_log_weight": 0.6, "mask_duplicates": True, "learn_temperature": True},
    "hard, masked pairs": {"mask_duplicates": None},
    "nt-xent, masked pairs": {"topology": "nt_xent", "mask_duplicates": None},
    "symmetric, masked pairs": {"symmetric": True, "mask_duplicates": None},
    "hard, extra, lone keys": {"hard_negative_log_weight": -math.inf, "keys_are_negatives": False},
}


def model_inputs(name):
    """All rows of all views, a queue, and ids of which two rows on different ranks share one."""
    views = [random(8, 4, seed=seed) for seed in range(3 if "hard" in name else 2)]
    extra = random(4, seed=9) if "extra" in name else None
    ids = torch.stack([torch.tensor([1, 2, 3, 4, 1, 5, 6, 3]) + 10 * (view % 2) for view in range(len(views))])
    if "pairs" in name:  # the keys of rows that share a query differ, and a hard negative is the key of another row
        ids[1] = torch.tensor([11, 12, 13, 14, 15, 16, 12, 18])
        ids[2:] = torch.tensor([15, 20, 21, 22, 23, 24, 25, 13])
    return views, extra, ids


def on_one_process(name, chunk_size):
    views, extra, ids = model_inputs(name)
    model = Model({**TOGETHER[name], "temperature": 0.3, "chunk_size": chunk_size})
    loss = model(views, extra, ids.flatten())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def on_rank(rank, name, chunk_size, rows):
    views, extra, ids = model_inputs(name)
    own = slice(0, rows[0]) if rank == 0 else slice(rows[0], sum(rows))
    model = DistributedDataParallel(Model({**TOGETHER[name], "temperature": 0.3, "chunk_size": chunk_size}))
    loss = model([view[own] for view in views], extra, ids[:, own].flatten())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.module.named_parameters()}


@pytest.mark.parametrize(("rows", "chunk_size"), [((4, 4), None), ((3, 5), None), ((3, 5), 2)])
@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_are_one(two_processes, name, rows, chunk_size):
    expected_loss, expected_gradients = on_one_process(name, None)
    results = two_processes(on_rank, name, chunk_size, rows)
    assert sum(loss for loss, _ in results) / 2 == pytest.approx(expected_loss, rel=1e-10)
    for _, gradients in results:
        assert gradients.keys() == expected_gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[key], rtol=1e-10, atol=1e-10)


def detached_gather(tensor, counts=None):
    return distributed._Gather.apply(tensor.detach(), counts or distributed.row_counts(tensor))


def on_rank_without_gradient(rank, name, rows):
    original = distributed.gather
    distributed.gather = detached_gather
    try:
        return on_rank(rank, name, None, rows)
    finally:
        distributed.gather = original


@pytest.mark.parametrize("name", ["plain", "nt-xent", "hard"])
def test_a_gather_without_gradient_is_not_one_process(two_processes, name):
    """The negative control: same loss, other gradient, and the test above would see it."""
    expected_loss, expected_gradients = on_one_process(name, None)
    results = two_processes(on_rank_without_gradient, name, (3, 5))
    assert sum(loss for loss, _ in results) / 2 == pytest.approx(expected_loss, rel=1e-10)
    difference = results[0][1]["encoder.weight"] - expected_gradients["encoder.weight"]
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_ids_of_texts_may_be_of_any_whole_type(dtype):
    first, second, ids = random(4), random(4, seed=1), torch.tensor([1, 2, 1, 3])
    module = InfoNCE(mask_duplicates=True)
    assert torch.equal(module(first, second, text_id=ids.to(dtype)), module(first, second, text_id=ids))
