"""Small parts that the encoders share: activations, dropout from random bytes, table look-up.

`F.dropout` on a CPU costs about 15 times the random bytes that it needs, so the masks here come from one byte per element.
All randomness starts from torch's global generator, which the training loop seeds before each forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 1 << 8
Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU ("gelu_new" and "gelu_pytorch_tanh" of Hugging Face)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": F.gelu,  # exact, by erf
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
}


def random_bytes(count: int, seed: int) -> Tensor:
    """`count` random int8 numbers (uniform over all 256) on the CPU."""
    words = np.random.SFC64(seed).random_raw((count + 7) // 8)
    return torch.from_numpy(words).view(torch.int8)[:count]


class Drops(NamedTuple):
    """Which elements a dropout keeps, as one random byte each: a mask in fp32, kept for the backward pass, would take four."""

    drawn: Tensor
    """int8, flat, on the CPU."""
    least: int
    """The least byte that is kept."""
    factor: float
    """1 / (probability of keeping)."""

    def keep(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A mask of zeros and ones."""
        keep = torch.empty(shape, dtype=dtype)
        return torch.ge(self.drawn.view(shape), self.least, out=keep)

    def dropped(self, x: Tensor) -> Tensor:
        """x with zeros where it is dropped, not scaled."""
        return self.keep(x.shape, x.dtype).mul_(x)


def drop(count: int, *, rate: float) -> Drops:
    """Draw `count` bytes. One draw from torch's global generator.

    A call drops with a probability of k / 256, where k is drawn from the two whole numbers around 256 * rate, so that the
    mean over calls is the rate itself (up to 255/256), and scales by what it drew: right in every call, not only in the mean.
    """
    seed = int(torch.randint(1 << 62, ()))
    whole, part = divmod(rate * LEVELS, 1.0)
    dropped = min(int(whole) + (seed / (1 << 62) < part), LEVELS - 1)
    return Drops(random_bytes(count, seed), dropped - LEVELS // 2, LEVELS / (LEVELS - dropped))


def keep_drops(ctx: Any, drops: Drops | None, *others: Tensor | None) -> None:
    """Save tensors and what was dropped for the backward pass: as saved tensors, so that activation checkpointing finds and frees them."""
    ctx.least, ctx.factor = (0, 1.0) if drops is None else drops[1:]
    ctx.dropped = drops is not None
    ctx.save_for_backward(*others, *(() if drops is None else (drops.drawn,)))


def kept_drops(ctx: Any) -> tuple[tuple[Any, ...], Drops | None]:
    """The tensors and the dropout that `keep_drops` saved. To be called once: activation checkpointing gives them away."""
    saved = ctx.saved_tensors
    return (saved[:-1], Drops(saved[-1], ctx.least, ctx.factor)) if ctx.dropped else (saved, None)


# A compiler sees this draw as one operation that it may neither repeat, merge nor move before its input: compiled blocks drop
# the same elements as plain ones.
@torch.library.custom_op("kitae::keep_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def drawn_mask(x: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """The mask and the factor of a dropout of x."""
    drops = drop(x.numel(), rate=rate)
    return drops.keep(x.shape, x.dtype), torch.tensor(drops.factor, dtype=torch.float64)


@drawn_mask.register_fake
def _(x: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty((), dtype=torch.float64, device=x.device)


def _traced(x: Tensor, rate: float) -> Tensor:
    keep, factor = drawn_mask(x.detach(), rate)
    return x * keep * factor


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        drops = drop(x.numel(), rate=rate)
        keep_drops(ctx, drops)
        return drops.dropped(x).mul_(drops.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        _, drops = kept_drops(ctx)
        assert drops is not None
        return drops.dropped(grad).mul_(drops.factor), None


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, rate: float) -> Tensor:
        drops = drop(x.numel(), rate=rate)
        keep_drops(ctx, drops)
        return torch.addcmul(residual, x, drops.keep(x.shape, x.dtype), value=drops.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        _, drops = kept_drops(ctx)
        assert drops is not None
        return drops.dropped(grad).mul_(drops.factor), grad, None


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.activation = activation
        return F.linear(activation(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        x_wanted, weight_wanted, bias_wanted, _ = ctx.needs_input_grad
        flat = grad.flatten(0, -2)
        with torch.enable_grad():
            entered = x.detach().requires_grad_(x_wanted)
            active = ctx.activation(entered)
        weight_grad = flat.t() @ active.detach().flatten(0, -2) if weight_wanted else None
        x_grad = torch.autograd.grad(active, entered, grad @ weight)[0] if x_wanted else None
        return x_grad, weight_grad, flat.sum(0) if bias_wanted else None, None


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Inverted dropout of any shape; the identity when not training or at rate 0."""
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    if torch.compiler.is_compiling():
        return _traced(x, rate)
    return _Dropout.apply(x, rate)


def dropout_add(x: Tensor, residual: Tensor, rate: float, training: bool) -> Tensor:
    """dropout(x) + residual, in one pass on the CPU."""
    if not training or rate == 0.0:
        return x + residual
    if x.device.type != "cpu":
        return F.dropout(x, rate) + residual
    if torch.compiler.is_compiling():
        return _traced(x, rate) + residual
    return _DropoutAdd.apply(x, residual, rate)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.dtype, ctx.padding = table.shape[0], table.dtype, padding
        return F.embedding(ids, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        # The CPU adds up in the dtype of the gradient: in bf16 a row used 300 times would stop growing.
        summed = torch.ops.aten.embedding_dense_backward(grad.float(), ids, ctx.rows, ctx.padding, False)
        return None, summed.to(ctx.dtype), None


def activated_linear(x: Tensor, layer: nn.Linear, activation: Activation) -> Tensor:
    """layer(activation(x)), keeping only x for the backward pass, which works the activation out again.

    Of all that a transformer's layer keeps, the activated states of its feed-forward part are a fifth, and working them out takes a
    hundredth of the time. A compiler finds this out alone; autocast wants to choose the dtypes itself.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return layer(activation(x))
    return _ActivatedLinear.apply(x, layer.weight, layer.bias, activation)


def lookup(ids: Tensor, table_VE: Tensor, padding: int | None = None) -> Tensor:
    """Rows of a table; the gradient is added up in fp32 for half-precision tables, in a fixed order; row `padding` gets none."""
    if table_VE.dtype in (torch.bfloat16, torch.float16) and table_VE.device.type == "cpu" and not torch.compiler.is_compiling():
        return _Lookup.apply(ids, table_VE, -1 if padding is None else padding)
    return F.embedding(ids, table_VE, padding)


def segment_rows(segments_BL: Tensor | None, table_KE: Tensor) -> Tensor:
    """x_BLE of the kinds of segments; x_E alone where all tokens are of kind 0: without segments, or in a model that knows one kind."""
    if segments_BL is None or len(table_KE) == 1:
        return table_KE[0]  # one broadcast row instead of B * L equal look-ups: its gradient is then a plain sum
    return lookup(segments_BL, table_KE)


def mask_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where `allowed` is true, -inf elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)


def scaled_product(left: Tensor, right: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """factor * left @ right, batched, with the factor applied inside the product."""
    if out is None:
        out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    return torch.baddbmm(out, left, right, beta=0, alpha=factor, out=out)
