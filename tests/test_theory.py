"""Chapter 5, tried on many more inputs: the functions come from the notebook's own code cells."""

import contextlib
import io
import itertools
import linecache
import math
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_theory.ipynb"
CELLS = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
a_few = settings(repeatable, max_examples=10)
moderate = st.floats(-1e6, 1e6)
finite = st.floats(allow_nan=False, allow_infinity=False)
finite32 = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.fixture(scope="module")
def theory():
    """What the notebook's code cells define, after one run; also its `claims` and what it has `shown`.

    Claims are collected, not raised, so that they count on any data set and one failure hides no other.
    """
    names, claims, shown = {}, [], []
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(
            "mnistae.results.claim", lambda sentence, holds, **_: claims.append((sentence, bool(holds)))
        )
        patch.setattr("IPython.display.display", shown.append)
        patch.setattr(plt, "show", lambda: plt.close("all"))
        stack.enter_context(mpl.rc_context())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        plt.switch_backend("Agg")
        for cell in CELLS:
            file = f"<{NOTEBOOK.name}, cell {cell.id}>"
            # inspect.getsource, which the notebook uses, looks here
            linecache.cache[file] = (len(cell.source), None, cell.source.splitlines(keepends=True), file)
            exec(compile(cell.source, file, "exec"), names)
    return SimpleNamespace(
        **{k: v for k, v in names.items() if k != "__builtins__"}, claims=claims, shown=shown
    )


def angle(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype)


# ---------------------------------------------------------------- the notebook as a whole


def test_every_claim_holds(theory):
    assert len(theory.claims) >= sum(cell.source.count("claim(") for cell in CELLS)
    assert [sentence for sentence, holds in theory.claims if not holds] == []


def test_each_question_has_one_answer():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    answers = [cell.id for cell in notebook.cells if "answer" in cell.metadata.get("tags", [])]
    assert answers == ["answer-1", "answer-2a", "answer-2b", "answer-3", "answer-4"]


def test_the_code_in_the_answer_runs_by_itself(theory):
    code = theory.shown[-1].data.split("```python")[1].split("```")[0]
    names = {"torch": torch}
    exec(code, names)
    assert names["angle_loss"](angle(2.0), angle(360.0)) == 2


# ---------------------------------------------------------------- question 1


def test_linear_and_affine_are_told_apart(theory):
    t = sympy.Symbol("t")
    linear = [theory.derivative, theory.moment, lambda u: 3 * u, lambda u: u.subs(t, 0), lambda u: 0 * u]
    affine = [lambda u: u + 1, lambda u: t * u - sympy.exp(t)]
    neither = [lambda u: u**2, lambda u: sympy.sin(u), lambda u: sympy.diff(u, t) * u]
    for f in linear:
        assert theory.is_linear(f)
        assert theory.is_affine(f)
    for f in affine:
        assert not theory.is_linear(f)
        assert theory.is_affine(f)
    for f in neither:
        assert not theory.is_linear(f)
        assert not theory.is_affine(f)
    assert all(theory.is_linear(theory.compose(g, f)) for g in linear for f in linear)
    assert all(theory.is_affine(theory.compose(g, f)) for g in linear + affine for f in linear + affine)


@a_few
@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=7), seed=st.integers(0, 99))
def test_a_stack_of_linear_layers_collapses_into_one(theory, sizes, seed):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        stack = nn.Sequential(*[nn.Linear(n, m) for n, m in itertools.pairwise(sizes)])
        single, inputs = theory.collapse(stack), torch.rand(20, sizes[0])
        assert (stack(inputs) - single(inputs)).abs().max() < 1e-6
        assert torch.linalg.matrix_rank(single.weight) <= min(sizes)


@a_few
@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=5))
def test_factors_of_a_linear_map_need_not_be_linear(theory, values):
    x = torch.tensor(values, dtype=torch.float64)
    for f, g in theory.factors.values():
        assert torch.allclose(g(f(x)), x, atol=1e-9)
    assert theory.bend(lambda x: 3 * x + 1, x, -x) < 1e-9


# ---------------------------------------------------------------- question 2a


@a_few
@given(curvatures=st.lists(st.floats(0.1, 10), min_size=1, max_size=4), share=st.floats(0.05, 1.2))
def test_descent_on_a_quadratic_is_a_power_and_converges_below_two_over_L(theory, curvatures, share):
    h = torch.tensor(curvatures, dtype=torch.float64)
    alpha = share * 2 / h.max().item()
    path = theory.descend(lambda theta: (h * theta**2).sum() / 2, torch.ones_like(h), alpha, 50)
    powers = (1 - alpha * h) ** torch.arange(51)[:, None]
    assert torch.allclose(path, powers, rtol=1e-6, atol=1e-9)
    if abs(share - 1) > 1e-3:
        steepest = path[:, h.argmax()].abs()
        assert (steepest[-1] < steepest[0]) == (share < 1)


@a_few
@given(start=st.floats(-3, 3), alpha=st.floats(0.05, 0.6))
def test_a_step_changes_nothing_exactly_at_stationary_points(theory, start, alpha):
    for point in (-1.0, 0.0, 1.0):
        assert theory.descend(theory.double_well, point, alpha, 1).diff() == 0
    assume(min(abs(start - point) for point in (-1, 0, 1)) > 1e-3)
    assert theory.descend(theory.double_well, start, alpha, 1).diff() != 0


@a_few
@given(start=st.floats(-5, 5), alpha=st.floats(0.01, 1.99))
def test_every_step_below_two_over_L_descends_as_derived(theory, start, alpha):
    def f(theta):  # its gradient, tanh, has L = 1
        return torch.log(torch.cosh(theta))

    path = theory.descend(f, start, alpha, 30)
    bound = alpha * (1 - alpha / 2) * torch.tanh(path[:-1]) ** 2
    assert (f(path).diff() <= -bound + 1e-12).all()


def test_each_stopping_test_can_be_fooled(theory):
    far = theory.descend(theory.plateau, 6.0, 1.0, 50)
    assert far.diff().abs().max() < 1e-6 < far.abs().min()
    flip = theory.descend(theory.bowl, 1.0, 2.0, 50)
    assert (theory.bowl(flip).diff() == 0).all()
    assert (flip.diff().abs() == 2).all()
    creep = theory.descend(theory.bowl, 1.0, 1e-9, 50)
    assert creep.diff().abs().max() < 1e-6 < creep[-1]


def test_measured_and_predicted_factors_agree(theory):
    assert np.allclose(theory.measured, theory.predicted, rtol=0.02)
    assert theory.scan[np.argmin(theory.predicted)] == 1.8  # next to 2L / (μ + L) = 20 / 11


# ---------------------------------------------------------------- question 2b


@pytest.mark.parametrize("formula", ["x**2*y - y**3", "exp(x*y)", "sin(x) + cos(x - 2*y)"])
def test_only_one_half_removes_the_error_of_second_order(theory, formula):
    x, y = sympy.symbols("x y", real=True)
    f = sympy.sympify(formula, locals={"x": x, "y": y})
    assert theory.second_order_error(f, sympy.Rational(1, 2)) == 0
    assert theory.second_order_error(f, 1) != 0
    assert theory.second_order_error(f, 0) != 0


@settings(repeatable, max_examples=25)
@given(h=st.tuples(*[st.integers(-3, 3)] * 3), cubic=st.tuples(*[st.integers(-1, 1)] * 4))
def test_the_verdict_is_what_is_seen_nearby(theory, h, cubic):
    """Integers keep the eigenvalues above 1/6 in size, so the radius 0.01 lies within δ."""
    assume(h[0] * h[2] != h[1] ** 2)
    x, y = sympy.symbols("x y", real=True)
    f = sympy.Rational(1, 2) * (h[0] * x**2 + 2 * h[1] * x * y + h[2] * y**2)
    f += cubic[0] * x**3 + cubic[1] * x**2 * y + cubic[2] * x * y**2 + cubic[3] * y**3
    point = {x: 0, y: 0}
    assert theory.classify(f, point) == theory.seen_nearby(f, point)
    assert theory.classify(2 * f, point) == theory.classify(f, point)  # as with the printed formula


def test_semi_definite_points_stay_undecided(theory):
    verdicts = {name.strip("$"): (verdict, seen) for name, verdict, seen in theory.rows}
    assert verdicts["x^4"] == ("undecided", "minimum")
    assert verdicts["-x^4"] == ("undecided", "maximum")
    assert verdicts["x^3"] == ("undecided", "saddle")
    assert verdicts["x^2 + y^4"] == ("undecided", "minimum")
    assert verdicts["x^2 - y^4"] == ("undecided", "saddle")
    assert verdicts["(y - x^2)(y - 2x^2)"] == ("undecided", "saddle")
    x = sympy.Symbol("x", real=True)
    assert theory.classify(x**2 + x, {x: 0}) == "not stationary"


def test_peano_has_a_minimum_on_every_line_and_none_in_the_plane():
    x, a, b, s = sympy.symbols("x a b s", real=True)

    def peano(x, y):
        return (y - x**2) * (y - 2 * x**2)

    assert sympy.expand(peano(s * a, s * b) - (b**2 * s**2 - 3 * a**2 * b * s**3 + 2 * a**4 * s**4)) == 0
    assert sympy.expand(peano(x, sympy.Rational(3, 2) * x**2) + x**4 / 4) == 0


def test_the_promised_radius(theory):
    assert all(theory.slack(r) >= 0 for r in np.linspace(0.001, 0.25, 50))
    assert theory.slack(2.0) < 0


@pytest.mark.parametrize("v", ["1", "2", "-3", "1/7"])
def test_the_smallest_autoencoder_has_a_valley_of_minima(theory, v):
    v = sympy.Rational(v)
    point = {theory.v: v, theory.w: 1 / v}
    loss = (1 - theory.v * theory.w) ** 2 / 2
    assert theory.classify(loss, point) == "undecided"
    assert set(sympy.hessian(loss, list(point)).subs(point).eigenvals()) == {0, v**2 + 1 / v**2}


# ---------------------------------------------------------------- question 3


def test_the_example_of_the_exercise(theory):
    for dtype in (torch.float32, torch.float64):
        assert theory.angle_loss(angle(2.0, dtype), angle(360.0, dtype)) == 2
        assert theory.angle_loss(angle(360.0, dtype), angle(2.0, dtype)) == 2
        assert theory.angle_loss(angle(0.0, dtype), angle(360.0, dtype)) == 0


@repeatable
@given(p=finite, t=finite)
def test_angle_loss_is_symmetric_and_between_0_and_180(theory, p, t):
    loss = theory.angle_loss(angle(p), angle(t))
    assert 0 <= loss <= 180
    assert torch.isclose(loss, theory.angle_loss(angle(t), angle(p)), atol=1e-9)


@repeatable
@given(p=moderate, t=moderate, i=st.integers(-50, 50), j=st.integers(-50, 50))
def test_angle_loss_is_periodic_in_both_arguments(theory, p, t, i, j):
    turned = theory.angle_loss(angle(p + 360 * i), angle(t + 360 * j))
    assert torch.isclose(theory.angle_loss(angle(p), angle(t)), turned, atol=1e-8)


@repeatable
@given(p=st.floats(-720, 720), t=st.floats(-720, 720), u=st.floats(-720, 720))
def test_angle_loss_is_the_shortest_way_round(theory, p, t, u):
    def loss(a, b):
        return theory.angle_loss(angle(a), angle(b)).item()

    assert math.isclose(loss(p, t), min(abs(p - t - 360 * k) for k in range(-5, 6)), abs_tol=1e-9)
    assert loss(p, t) <= loss(p, u) + loss(u, t) + 1e-9


@repeatable
@given(p=moderate, t=moderate)
def test_gradient_is_plus_or_minus_one_away_from_the_kinks(theory, p, t):
    prediction, target = angle([p]).requires_grad_(), angle([t]).requires_grad_()
    difference = theory.wrapped_difference(prediction, target)
    assume(1e-6 < difference.abs() < 180 - 1e-6)
    theory.angle_loss(prediction, target).sum().backward()
    assert prediction.grad == difference.sign()
    assert target.grad == -difference.sign()


@repeatable
@given(p=finite32, t=finite32)
def test_no_nan_or_infinity_for_any_float(theory, p, t):
    for dtype in (torch.float32, torch.float64):
        for loss in (theory.angle_loss, theory.cosine_loss):
            prediction, target = angle([p], dtype), angle([t], dtype)
            assert loss(prediction, target).isfinite().all()
            assert theory.gradient(loss, prediction, target).isfinite().all()


@repeatable
@given(p=finite)
def test_equal_angles_cost_nothing_and_are_left_alone(theory, p):
    for loss in (theory.angle_loss, theory.cosine_loss):
        assert loss(angle([p]), angle([p])) == 0
        assert theory.gradient(loss, angle([p]), angle([p])) == 0


@pytest.mark.parametrize("t", [0.0, 5.0, 180.0, -90.0])
def test_at_the_antipode(theory, t):
    prediction, target = angle([t + 180]), angle([t])
    assert theory.angle_loss(prediction, target) == 180
    assert theory.gradient(theory.angle_loss, prediction, target).abs() == 1
    assert theory.gradient(theory.cosine_loss, prediction, target).abs() < 1e-12
    assert theory.gradient(theory.pair_loss, theory.to_pair(prediction), target).norm() > 3.9


@repeatable
@given(p=moderate, t=moderate, length=st.floats(0.01, 100))
def test_the_smooth_rivals_agree_with_their_formulas(theory, p, t, length):
    pair, prediction, target = length * theory.to_pair(angle(p)), angle(p), angle(t)
    expected = 1 - math.cos(math.radians(theory.angle_loss(prediction, target).item()))
    assert math.isclose(theory.cosine_loss(prediction, target).item(), expected, abs_tol=1e-9)
    squared = (length - 1) ** 2 + 2 * length * expected
    assert math.isclose(theory.pair_loss(pair, target).item(), squared, rel_tol=1e-9, abs_tol=1e-6)
    assert theory.angle_loss(theory.to_angle(pair), prediction) < 1e-6


@settings(repeatable, max_examples=5)
@given(start=st.integers(0, 359), target=st.integers(0, 359))
def test_descent_goes_the_short_way_and_the_naive_loss_may_not(theory, start, target):
    goal = angle(float(target))
    way = abs(start - target)
    circular = theory.path_to(goal, float(start), theory.angle_loss)
    naive = theory.path_to(goal, float(start), theory.naive_loss)
    assert circular.diff().abs().sum() == min(way, 360 - way)
    assert naive.diff().abs().sum() == way
    assert theory.angle_loss(circular[-1], goal) == theory.angle_loss(naive[-1], goal) == 0


# ---------------------------------------------------------------- question 4

A, B, C = sympy.symbols("a b c")  # names of slots


@pytest.mark.parametrize("f", [A * B * C, sympy.sin(A + 2 * B) * C, sympy.exp(A * B) + C**2 * B])
def test_part_a(theory, f):
    assert theory.agrees(theory.term_a, theory.formula_a, [sympy.Lambda((A, B, C), f)], "x y z")


@a_few
@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_part_b(theory, order):
    assert theory.agrees(theory.term_b, theory.formula_b, [theory.chain[n] for n in order], "x")


@settings(repeatable, max_examples=6)
@given(order=st.lists(st.integers(0, 3), max_size=3))
def test_part_c(theory, order):
    functions = [*(theory.outer[n] for n in order), theory.last]
    assert theory.agrees(theory.term_c, theory.recursion_c, functions, "x")
    assert theory.agrees(theory.term_c, theory.sum_c, functions, "x")


@pytest.mark.parametrize("names", [(0, 1, 2), (2, 3, 0), (1, 1, 1)])
def test_part_d(theory, names):
    assert theory.agrees(theory.term_d, theory.formula_d, [theory.chain[n] for n in names], "x")


def test_wrong_chain_rules_are_noticed(theory):
    f = sympy.Lambda((A, B, C), A**2 * B + B * C)
    assert not theory.agrees(
        theory.term_a, lambda slot, f, x, y, z: slot(f, 1)(x + y, 2 * x, z), [f], "x y z"
    )
    wrong_point = [sympy.Lambda(A, A**2), sympy.Lambda(A, sympy.sin(A))]
    assert not theory.agrees(
        theory.term_b, lambda slot, f, g, x: slot(f, 1)(x) * slot(g, 1)(x), wrong_point, "x"
    )
    no_skip = [sympy.Lambda(A, A**2), sympy.Lambda(A, A**3), sympy.Lambda(A, sympy.sin(A))]
    assert not theory.agrees(
        theory.term_d,
        lambda slot, f, g, h, x: slot(f, 1)(x + g(x + h(x))) * slot(g, 1)(x + h(x)) * slot(h, 1)(x),
        no_skip,
        "x",
    )
