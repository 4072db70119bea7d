"""AdamW's state beside exported weights: its moments in their layout, and the rule they belong to.

Below `optimizer/` a folder for each moment, under PyTorch's names, has the names, shapes and files
that the weights have; `optimizer.json` says the rest. `torch.optim.AdamW` goes on from there with
`LOADER`, which needs nothing of ours.

Source: the state of https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html: `step`,
`exp_avg` and `exp_avg_sq` of each parameter, without the correction of their bias, as optax keeps
`count`, `mu` and `nu`.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama_jax.config import AdamW, ModelConfig
from llama_jax.convert import mapping, safetensors
from llama_jax.convert.certificate import tensor_entry
from llama_jax.convert.hugging_face import Parameter, read_tensor
from llama_jax.convert.result_folder import Unfinished

FOLDER = "optimizer"
FACTS = "optimizer.json"
FORMAT = 1
DTYPE = "float32"
MOMENTS = {"exp_avg": "mu", "exp_avg_sq": "nu"}  # PyTorch's names, and optax's

LOADER = '''\
import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def load_adamw(model, folder):
    """torch.optim.AdamW with the moments of the run that exported `folder`."""
    said = json.loads(Path(folder, "optimizer/optimizer.json").read_text())
    weights = dict(model.named_parameters())
    adamw = torch.optim.AdamW(
        [
            group | {"params": [weights[name] for name in group.pop("names")]}
            for group in said["groups"]
        ]
    )
    for weight in weights.values():
        adamw.state[weight]["step"] = torch.tensor(float(said["updates"]))
    for file in Path(folder, "optimizer").glob("exp_avg*/*.safetensors"):
        for name, moment in load_file(file).items():
            adamw.state[weights[name]][file.parent.name] = moment.to(weights[name].device)
    return adamw
'''

WRITER = '''\
import json
from pathlib import Path

from safetensors.torch import save_file


def save_adamw(adamw, model, folder, run=None):
    """Adds AdamW's moments to `folder`, which `model.save_pretrained` wrote."""
    names = {weight: name for name, weight in model.named_parameters()}
    for moment in ("exp_avg", "exp_avg_sq"):
        tensors = {
            names[weight]: state[moment].float().contiguous()
            for weight, state in adamw.state.items()
        }
        Path(folder, "optimizer", moment).mkdir(parents=True)
        save_file(tensors, Path(folder, "optimizer", moment, "model.safetensors"))
    groups = [
        {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
        | {"names": [names[weight] for weight in group["params"]]}
        for group in adamw.param_groups
    ]
    updates = int(max(state["step"] for state in adamw.state.values()))
    said = {"format": 1, "updates": updates, "groups": groups, "run": run}
    Path(folder, "optimizer/optimizer.json").write_text(json.dumps(said))
'''


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run stands.

    Attributes:
        step: Updates, skipped ones included.
        updates: Of the moments.
        samples: Rows consumed.
        first_sample: Counter of rows at which the run's own updates began.
        tokens: Consumed, padding included.
    """

    step: int
    updates: int
    samples: int
    first_sample: int
    tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """AdamW's state of one checkpoint, its arrays not yet read.

    Attributes:
        rule: That made them.
        learning_rate: Of the next update.
        place: Where the run stands.
        open: Gives the arrays of a moment, by optax's name of it, by path of the parameter.
    """

    rule: AdamW
    learning_rate: float
    place: Place
    open: Callable[[str], Mapping[str, Parameter]]


def write_moments(
    moments: Moments,
    unfinished: Unfinished,
    model: ModelConfig,
    *,
    max_shard_bytes: int,
    on_tensor: Callable[[str, int], None] = lambda name, num_bytes: None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Adds moments to a folder of exported weights, and a section to its model card.

    One layer of one moment is read at a time, as of the weights.

    Args:
        moments: To write.
        unfinished: The folder, with a README.md.
        model: Shape of the exported weights, without rows that pad the vocabulary.
        max_shard_bytes: Of tensors in one file.
        on_tensor: Called with the name and bytes of each tensor written.

    Returns:
        Bytes and SHA-256 of the files of tensors, and what the certificate says of the optimizer.

    Raises:
        ValueError: If a value is not finite, or a file is not what its checksum says.
    """
    tensors = {tensor.name: tensor for tensor in mapping.tensors_of(model)}
    known: dict[str, dict[str, Any]] = {}
    entries: dict[str, dict[str, Any]] = {}
    for theirs, ours in MOMENTS.items():
        arrays = moments.open(ours)
        files, checksums = safetensors.write(
            unfinished.below(f"{FOLDER}/{theirs}"),
            {name: tensor.shape for name, tensor in tensors.items()},
            lambda name, arrays=arrays: read_tensor(
                tensors[name], arrays[tensors[name].pair.ours], DTYPE
            ),
            dtypes=dict.fromkeys(tensors, DTYPE),
            max_shard_bytes=max_shard_bytes,
            on_tensor=on_tensor,
        )
        known |= {f"{FOLDER}/{theirs}/{name}": entry for name, entry in files.items()}
        entries[theirs] = {
            name: tensor_entry(DTYPE, tensor.shape, checksums[name])
            for name, tensor in tensors.items()
        }
    facts = _facts(moments, tensors.values())
    text = json.dumps(facts, indent=1) + "\n"
    (unfinished.folder / FOLDER / FACTS).write_text(text, encoding="utf-8")
    with (unfinished.folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(_section(moments))
    return known, {"optimizer": {"updates": moments.place.updates, "tensors": entries}}


def decays(tensor: mapping.Tensor) -> bool:
    """Whether weight decay takes a tensor: all matrices, and no norm."""
    return not tensor.pair.ours.endswith(".scale")


def _facts(moments: Moments, tensors: Iterable[mapping.Tensor]) -> dict[str, Any]:
    rule = moments.rule
    names: dict[bool, list[str]] = {True: [], False: []}
    for tensor in tensors:
        names[decays(tensor)].append(tensor.name)
    groups = [
        {
            "lr": moments.learning_rate,
            "betas": [rule.beta1, rule.beta2],
            "eps": rule.eps,
            "weight_decay": rule.weight_decay if decayed else 0.0,
            "names": names[decayed],
        }
        for decayed in (True, False)
    ]
    return {
        "format": FORMAT,
        "updates": moments.place.updates,
        "groups": groups,
        "clip_norm": rule.clip_norm,
        "run": dataclasses.asdict(moments.place),
    }


def _section(moments: Moments) -> str:
    return f"""
## Train on

`optimizer/` holds AdamW's moments after {moments.place.updates:,} updates, in the layout of the
weights; `optimizer.json` the learning rate of the next update, and what gradients were clipped to.

```python
{LOADER}```
"""
