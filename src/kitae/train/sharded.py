"""Weights in shards (FSDP2): every process holds its rows of every weight, and what belongs to them; a layer is whole while it works.

Zhao et al. 2023 (arXiv:2304.11277); torch.distributed.fsdp.fully_shard.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss
from kitae.tensor.world import World
from kitae.train.batches import arm_blocks
from kitae.train.config import TrainConfig
from kitae.train.flat import DTYPES, Collecting, Collector, Key, Slot, fill, lay_out

_BLOCK = re.compile(r"(?:.*\.)?blocks\.\d+")


class ShardedWeights(Collecting):
    """The trained weights of a module, divided over the processes by rows (see `Weights`).

    Trained is a twin of the module, whose weights are gathered layer by layer, in the working precision, for the forward and for the
    backward pass, while its flat storage holds this process's rows: masters, gradients, and what rules keep beside them. The module that
    was given is hollow in the meantime (`whole` fills it). Gradients are added up over the processes at the end of every backward pass,
    so that only one unit's gradient at a time is whole; therefore all processes must make equally many.
    """

    in_step = True

    def __init__(self, module: nn.Module, keys: Mapping[str, Key], world: World, config: TrainConfig) -> None:
        """`keys` as for FlatWeights; the world has more than one process."""
        self.work_dtype = DTYPES[config.precision]
        self.dtype = torch.float64 if config.precision == "fp64" else torch.float32
        self._world, self._device = world, world.device
        self._named = dict(module.named_parameters())
        self.spans = lay_out(self._named, keys, {name: self._rows(len(parameter)) for name, parameter in self._named.items()})
        self.slots = [slot for span in self.spans for slot in span.slots]
        self.master = torch.zeros(self.spans[-1].end, dtype=self.dtype, device=self._device)
        self.grad = torch.zeros_like(self.master)
        self.frozen = {
            name: self.cut(name, p.detach()).to(self._device, self.dtype, copy=True) for name, p in self._named.items() if name not in keys
        }
        for slot in self.slots:
            self._row(slot, self.master).copy_(self.cut(slot.name, slot.parameter.detach()))
        self._hollow_out()
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                setattr(part, name, buffer.to(self._device, self.work_dtype if buffer.is_floating_point() else buffer.dtype))
        self._root = _Root(_twin(module))
        arm_blocks(self._root, compiled=config.compile, recomputed=config.activation_checkpointing)
        self._divide()
        locals_ = self._put_in()
        with torch.no_grad():
            self._root(None)  # settles that this is the root, and where the rows lie
        self._root.reshard()  # or the first pass would be made with the weights of now
        self._apart = [(local, row) for local, row in locals_ if local.to_local().data_ptr() != row.data_ptr()]
        self.publish()

    @staticmethod
    def _row(slot: Slot, flat: Tensor) -> Tensor:
        return flat[slot.start : slot.end].view(slot.shape)

    def _divide(self) -> None:
        """Let torch divide the twin: one unit for each layer, and one for all the rest, shared tables among it."""
        mesh = init_device_mesh(self._device.type, (self._world.size,))
        own = None if self.work_dtype == self.dtype else self.work_dtype
        policy = MixedPrecisionPolicy(param_dtype=own, reduce_dtype=self.dtype, cast_forward_inputs=False)
        units = [part for name, part in self._root.named_modules() if _BLOCK.fullmatch(name)]
        for unit in (*units, self._root):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
            unit.set_gradient_divide_factor(1.0)  # shares of the loss add up to the mean already
            unit.set_force_sum_reduction_for_comms(True)
        self._mesh = mesh

    def _put_in(self) -> list[tuple[DTensor, Tensor]]:
        """Let the twin's parameters be views of the flat storage; returns them with their rows there."""
        rows = {slot.name: self._row(slot, self.master) for slot in self.slots} | self.frozen
        made: dict[int, nn.Parameter] = {}
        self._collectors = []
        places = {slot.name: self.grad[slot.start : slot.end] for slot in self.slots}
        found = []
        for name, hollow in dict(self._root.learner.named_parameters()).items():
            stride = torch.empty(hollow.shape, device="meta").stride()
            whole = DTensor.from_local(rows[name], self._mesh, [Shard(0)], run_check=False, shape=hollow.shape, stride=stride)
            parameter = made[id(hollow)] = nn.Parameter(whole, requires_grad=name in places)
            found.append((parameter, rows[name]))
            if name in places:
                self._collectors.append(Collector(places[name]))
                parameter.register_post_accumulate_grad_hook(self._collectors[-1])
        for part in self._root.modules():
            for name, hollow in list(part.named_parameters(recurse=False, remove_duplicate=False)):
                setattr(part, name, made[id(hollow)])
        return found

    def learner(self, batch: Batch) -> Loss:
        """The loss of a micro-batch; every process has one."""
        loss = self._root(batch)[1]
        assert loss is not None
        return loss

    def add_up(self, world: World) -> Tensor:
        """See `Weights`: every backward pass has done it."""
        return self.grad

    def not_finite(self) -> list[str]:
        """See `Weights`: of all processes' gradients, which lie here by rows."""
        grad = self.gradient()
        bad = [float(not bool(torch.isfinite(grad[slot.start : slot.end]).all())) for slot in self.slots]
        seen = self._world.sum_numbers({str(number): value for number, value in enumerate(bad)})
        return [slot.name for number, slot in enumerate(self.slots) if seen[str(number)]]

    def norm(self, grad: Tensor) -> Tensor:
        """See `Weights`."""
        own = torch.linalg.vector_norm(grad).to(torch.float64)
        return self._world.sum(own.square()).sqrt().to(grad.dtype)

    def norms(self, found: Tensor, wholes: Tensor, count: int) -> Tensor:
        """See `Weights`."""
        squares = torch.zeros(count, dtype=torch.float64, device=self._device)
        squares.index_add_(0, wholes, found.to(torch.float64).square())
        return self._world.sum(squares).sqrt().to(found.dtype)

    def assembled(self, slot: Slot, part: Tensor) -> Tensor:
        """See `Weights`."""
        return self._gather(part, len(slot.parameter))

    @torch.no_grad()
    def publish(self) -> None:
        """See `Weights`: rows are the masters themselves, but for the last ones of weights that torch fills up to equal shares."""
        for local, row in self._apart:
            local.to_local().copy_(row)

    def weights(self) -> dict[str, Tensor]:
        """See `Weights`."""
        return {slot.name: self._row(slot, self.master) for slot in self.slots} | self.frozen

    def _share(self, rows: int) -> int:
        """Rows of every process but the last ones, of a weight with so many."""
        return -(-rows // self._world.size)

    def _rows(self, rows: int) -> range:
        """Those of this process, of a weight with so many; as torch.chunk makes them."""
        share = self._share(rows)
        return range(rows)[share * self._world.rank : share * (self._world.rank + 1)]

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """See `Weights`: its share of the rows. Raises KitaeError when the shape is not the weight's."""
        if whole.shape != self._named[name].shape:
            what = f"the weights of the checkpoint do not fit this model: {name} differs"
            raise KitaeError(what, cure="choose a new output")
        rows = self._rows(len(whole))
        return whole[rows.start : rows.stop]

    def _gather(self, part: Tensor, rows: int) -> Tensor:
        """A whole tensor of so many rows from the parts of all processes."""
        share = self._share(rows)
        padded = part.new_zeros(share, *part.shape[1:])
        padded[: len(part)] = part
        whole = part.new_empty(share * self._world.size, *part.shape[1:])
        dist.all_gather(list(whole.split(share)), padded)
        return whole[:rows]

    def gathered(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Weights`: one tensor after the other goes over the device to the first process's memory."""
        kept: dict[str, Tensor] = {}
        for name, part in parts.items():
            known = name if name in self._named else name.partition(".")[2]
            whole = self._gather(part, len(self._named[known]))
            if self._world.main:
                kept[name] = whole.cpu()
        return kept

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """See `Weights`."""
        fill(self.weights(), {name: self.cut(name, whole) for name, whole in weights.items() if name in self._named}, "weights")
        self.publish()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """See `Weights`."""
        self.hand_back()
        try:
            yield
        finally:
            self._hollow_out()

    def hand_back(self) -> None:
        """See `Weights`."""
        for name, part in self.weights().items():
            self._named[name].data = self._gather(part.to(self.work_dtype), len(self._named[name]))

    def _hollow_out(self) -> None:
        for parameter in self._named.values():  # the shape stays
            parameter.data = torch.zeros((), dtype=self.work_dtype, device=self._device).expand(parameter.shape)

    def close(self) -> None:
        """See `Weights`: the twin goes."""
        del self._root, self._collectors, self._apart, self._mesh


class _Root(nn.Module):
    """The learner, in a shape that lets torch find the tensors of its loss."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, batch: Batch | None) -> tuple[list[Tensor], Loss | None]:
        """(sums of its terms, loss) of a micro-batch; nothing of none."""
        if batch is None:
            return [], None
        loss = self.learner(batch)
        return [term.sum for term in loss.terms], loss


def _twin(module: nn.Module) -> nn.Module:
    """A copy whose parameters take no memory and whose buffers are the module's own, for training."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, memo).train()
