"""What chapter 5 derives and does not check itself; its own ✓ claims are checked as it runs."""

import importlib.util

import nbformat
import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnistae.data import ROOT

x, y = sympy.symbols("x y", real=True)
angles = st.floats(allow_nan=False, allow_infinity=False, width=32)
repeatable = settings(derandomize=True, deadline=None)
a_few = settings(repeatable, max_examples=25)


@pytest.fixture(scope="module")
def theory(tmp_path_factory):
    """The notebook's code cells, run as a module."""
    path = tmp_path_factory.mktemp("theory") / "theory.py"
    cells = nbformat.read(ROOT / "notebooks" / "05_theory.ipynb", as_version=4).cells
    path.write_text("\n\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    spec = importlib.util.spec_from_file_location("theory", path)
    module = importlib.util.module_from_spec(spec)
    with torch.random.fork_rng(devices=[]):
        spec.loader.exec_module(module)
    return module


# Question 1


def test_maps_that_are_not_affine_are_recognised(theory):
    for f in (lambda u: u**2, sympy.sin, lambda u: sympy.diff(u, theory.t) * u):
        assert not theory.is_linear(f)
        assert not theory.is_affine(f)


# Question 2


@a_few
@given(start=st.floats(-5, 5), alpha=st.floats(0.01, 1.99))
def test_every_step_below_two_over_L_descends_as_derived(theory, start, alpha):
    def f(theta):  # its gradient, tanh, has L = 1
        return torch.log(torch.cosh(theta))

    path = theory.descend(f, start, alpha, 30)
    bound = alpha * (1 - alpha / 2) * torch.tanh(path[:-1]) ** 2
    assert (f(path).diff() <= -bound + 1e-12).all()


def test_descent_on_a_quadratic_is_fastest_at_two_over_mu_plus_L(theory):
    assert theory.scan[np.argmin(theory.measured)] == 1.8  # αL; 2L / (μ + L) is 20 / 11


@a_few
@given(h=st.tuples(*[st.integers(-3, 3)] * 3), cubic=st.tuples(*[st.integers(-1, 1)] * 4))
def test_the_second_order_test_says_what_is_seen_nearby(theory, h, cubic):
    """Integers keep the eigenvalues above 1/6 in size, so the radius 0.01 lies within δ."""
    assume(h[0] * h[2] != h[1] ** 2)
    f = sympy.Rational(1, 2) * (h[0] * x**2 + 2 * h[1] * x * y + h[2] * y**2)
    f += cubic[0] * x**3 + cubic[1] * x**2 * y + cubic[2] * x * y**2 + cubic[3] * y**3
    origin = {x: 0, y: 0}
    assert theory.classify(f, origin) == theory.seen_nearby(f, origin)
    assert theory.classify(2 * f, origin) == theory.classify(f, origin), "as with the printed formula"
    assert theory.classify(f + x, origin) == "not stationary"


def test_peano_s_function_has_a_minimum_on_every_line_and_none_in_the_plane(theory):
    [peano] = (f for name, f, _ in theory.examples if "2x^2" in name)
    a, b, s = sympy.symbols("a b s", real=True)
    on_a_line = b**2 * s**2 - 3 * a**2 * b * s**3 + 2 * a**4 * s**4
    assert sympy.expand(peano.subs({x: s * a, y: s * b}) - on_a_line) == 0
    assert sympy.expand(peano.subs(y, sympy.Rational(3, 2) * x**2) + x**4 / 4) == 0


# Question 3


@repeatable
@given(p=angles, t=angles)
def test_angle_losses_are_finite_for_every_float(theory, p, t):
    for dtype in (torch.float32, torch.float64):
        one, other = (torch.tensor([angle], dtype=dtype).requires_grad_() for angle in (p, t))
        assert 0 <= theory.angle_loss(one, other) <= 180
        theory.angle_loss(one, other).sum().backward()
        assert one.grad == -other.grad
        assert one.grad.abs() == (theory.wrapped_difference(one, other) != 0)
        assert theory.cosine_loss(one, other).isfinite()
        assert theory.gradient(theory.cosine_loss, one.detach(), other.detach()).isfinite()
        for loss in (theory.angle_loss, theory.cosine_loss):
            assert loss(one, one) == 0


# Question 4


def test_wrong_chain_rules_are_noticed(theory):
    a, b, c = sympy.symbols("a b c")  # names of slots
    f, sine = sympy.Lambda((a, b, c), a**2 * b + b * c), sympy.Lambda(a, sympy.sin(a))
    square, cube = sympy.Lambda(a, a**2), sympy.Lambda(a, a**3)

    def without_a_slot(slot, f, x, y, z):
        return slot(f, 1)(x + y, 2 * x, z)

    def at_the_wrong_point(slot, f, g, x):
        return slot(f, 1)(x) * slot(g, 1)(x)

    def without_skip_connections(slot, f, g, h, x):
        return slot(f, 1)(x + g(x + h(x))) * slot(g, 1)(x + h(x)) * slot(h, 1)(x)

    assert not theory.agrees(theory.term_a, without_a_slot, [f], "x y z")
    assert not theory.agrees(theory.term_b, at_the_wrong_point, [square, sine], "x")
    assert not theory.agrees(theory.term_d, without_skip_connections, [square, cube, sine], "x")
