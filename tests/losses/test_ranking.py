"""Ranking distillation: loops as oracles, closed forms, gradients."""

import itertools
import math

import pytest
import torch
from oracles import slow_jensen_shannon, slow_list_mle, slow_list_net

from textcl.losses.ranking import jensen_shannon, list_mle, list_net


def random(rows=3, columns=4, seed=0):
    return 2 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SLOW = {list_mle: slow_list_mle, list_net: slow_list_net, jensen_shannon: slow_jensen_shannon}


@pytest.mark.parametrize("loss", SLOW)
def test_each_is_its_equation(loss):
    first, second = random(seed=1), random(seed=2)
    assert loss(first, second).item() == pytest.approx(SLOW[loss](first, second), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", SLOW)
def test_half_precision_is_computed_in_float32(loss, dtype):
    first, second = random(seed=1).to(dtype), random(seed=2).to(dtype)
    found = loss(first, second)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(first.double(), second.double()).item(), rel=1e-6)


@pytest.mark.parametrize("loss", SLOW)
def test_the_gradient_of_each_is_that_of_finite_differences(loss):
    teacher = random(seed=2)
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), [random(seed=1).requires_grad_()])


@pytest.mark.parametrize("loss", SLOW)
def test_a_constant_added_to_a_rows_scores_and_the_order_of_columns_change_nothing(loss):
    first, second, order = random(seed=1), random(seed=2), torch.tensor([2, 0, 3, 1])
    expected = loss(first, second).item()
    assert loss(first + random(3, 1, seed=3), second + random(3, 1, seed=4)).item() == pytest.approx(
        expected, abs=1e-10
    )
    assert loss(first[:, order], second[:, order]).item() == pytest.approx(expected, abs=1e-10)
    assert abs(loss(first[:, order], second).item() - expected) > 1e-3


def test_list_mle_of_two_is_the_logistic_loss():
    student, teacher = random(5, 2, seed=1), random(5, 2, seed=2)
    margin = (student[:, 0] - student[:, 1]) * (teacher[:, 0] - teacher[:, 1]).sign()
    expected = (1 + (-margin).exp()).log().sum()
    assert list_mle(student, teacher).item() == pytest.approx(expected.item(), abs=1e-10)


def test_list_mle_is_least_where_the_student_has_the_teachers_order():
    teacher = torch.tensor([[0.1, 0.9, -0.3, 0.5]], dtype=torch.float64)
    scores = [2.0, 1.0, 0.0, -1.0]
    losses = {
        order: list_mle(torch.tensor([order], dtype=torch.float64), teacher).item()
        for order in itertools.permutations(scores)
    }
    assert min(losses, key=losses.get) == (0.0, 2.0, -1.0, 1.0)
    assert max(losses, key=losses.get) == (1.0, -1.0, 2.0, 0.0)


def test_list_net_is_least_where_the_student_says_what_the_teacher_says():
    teacher = random(seed=2)
    (gradient,) = torch.autograd.grad(list_net(student := teacher.clone().requires_grad_(), teacher), student)
    assert gradient.abs().max() < 1e-12
    assert list_net(teacher, teacher) < min(list_net(random(seed=seed), teacher) for seed in range(3, 8))


def test_jensen_shannon_goes_from_0_to_ln_2():
    first, second = random(seed=1), random(seed=2)
    assert jensen_shannon(first, first).item() == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon(first, second).item() == pytest.approx(jensen_shannon(second, first).item(), abs=1e-12)
    for seed in range(5):
        assert 0 < jensen_shannon(30 * random(1, seed=seed), 30 * random(1, seed=seed + 9)).item() <= math.log(2)
    apart = torch.tensor([[50.0, 50.0, -50.0, -50.0]], dtype=torch.float64)
    assert jensen_shannon(apart, -apart).item() == pytest.approx(math.log(2), abs=1e-10)


def test_scores_of_a_low_temperature_stay_finite():
    """A cosine of 1 over a temperature of 0.01 overflows when it is exponentiated."""
    student, teacher = (100 * random(seed=seed).sign().float() for seed in (1, 2))
    for loss in SLOW:
        (gradient,) = torch.autograd.grad(loss(scores := student.clone().requires_grad_(), teacher), scores)
        assert gradient.isfinite().all()
