"""The rules of muP and CompleteP, one for each role of a parameter.

The papers multiply activations by constants in the forward pass: the logits, what a block adds to
the residual stream, the scores of attention. Here each constant is part of the weights that it
would multiply. The optimizer takes it out of their gradients and puts it into their updates, so
every weight moves as in the papers, and the model is an ordinary LLaMA: evaluation, generation and
conversion know nothing of this.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from llama_jax.config import CompleteP, RunConfig

Factors = Callable[["Rule"], float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """By what a parameter differs from that of the base.

    Attributes:
        initial: Multiplies its initial value.
        multiplier: Constant of the forward pass that its value contains.
        learning_rate: Multiplies the learning rate, but not the decay: weights lose the same share
            of themselves at every size.
        epsilon: Multiplies Adam's epsilon, as the gradients of larger models are smaller.
    """

    initial: float = 1.0
    multiplier: float = 1.0
    learning_rate: float = 1.0
    epsilon: float = 1.0


Rules = dict[str, Rule]


def make_rules(config: RunConfig) -> Rules | None:
    """The rule of every role that a parameter may have; None where the run has none.

    With `m` for width and `l` for depth over the base's. Hidden matrices begin with a variance of
    `1 / m` and learn at `1 / m`, tables at 1; logits are multiplied by `1 / m`, what a block adds
    by `1 / l`, scores by `1 / head_dim`. The decay of hidden matrices is multiplied by `m`, which
    their learning rate takes back.

    Sources: Yang et al. 2022 (arXiv:2203.03466), table 8 for Adam and definition 4.1 for scores;
    Dey et al. 2025 (arXiv:2505.01618), table 1 with alpha = 1, of which the authors' code
    (EleutherAI/nanoGPT-mup, branch completep) scales one epsilon for all parameters. Deviations:
    the logits' factor is in the final norm, so that tied tables can have it; the matrices that a
    block adds by begin at `1 / sqrt(2L)` of the others, L the base's depth (with `MuP`, the
    model's), as they do without a parameterisation.
    """
    model, parameterisation = config.model, config.parameterisation
    if parameterisation is None:
        return None
    m = model.embed_dim / parameterisation.base_embed_dim
    heads = math.sqrt(parameterisation.base_head_dim / model.head_dim)
    l, undo = 1.0, 1.0  # noqa: E741 (of the papers)
    if isinstance(parameterisation, CompleteP):
        l = model.num_layers / parameterisation.base_num_layers  # noqa: E741
        undo = math.sqrt(l)
    table = Rule(epsilon=1 / m)
    hidden = Rule(initial=1 / math.sqrt(m), learning_rate=1 / m, epsilon=1 / (m * l))
    into_residual = dataclasses.replace(hidden, initial=undo / math.sqrt(m), multiplier=1 / l)
    norm = Rule(epsilon=1 / (m * l))
    return {
        "embed.table": table,
        "output.table": table,
        "final_norm.scale": Rule(multiplier=1 / m, epsilon=1 / m),
        "attention_norm.scale": norm,
        "mlp_norm.scale": norm,
        "attention.query": dataclasses.replace(hidden, multiplier=heads),
        "attention.key": hidden,
        "attention.value": hidden,
        "attention.out": into_residual,
        "mlp.gate": hidden,
        "mlp.up": hidden,
        "mlp.down": into_residual,
    }


def begin(params: Any, rules: Rules | None) -> Any:
    """Initial parameters as the rules have them, from those of `init_params`."""
    if rules is None:
        return params

    def scale(params: Any) -> Any:
        return _multiplied(params, rules, lambda rule: rule.initial * rule.multiplier)

    layout = jax.tree.map(lambda param: param.sharding, params)
    return jax.jit(scale, donate_argnums=0, out_shardings=layout)(params)


def without_multipliers(
    clip: optax.GradientTransformation, rules: Rules
) -> optax.GradientTransformation:
    """A clip that measures gradients as if the constants were not in the weights."""
    return _around(clip, rules, before=lambda rule: rule.multiplier)


def at_each_size(adam: optax.GradientTransformation, rules: Rules) -> optax.GradientTransformation:
    """Adam with the learning rate and the epsilon of each rule.

    To divide a gradient is to multiply epsilon: Adam knows no other scale.
    """
    return _around(
        adam,
        rules,
        before=lambda rule: 1 / rule.epsilon,
        after=lambda rule: rule.multiplier * rule.learning_rate,
    )


def _around(
    inner: optax.GradientTransformation,
    rules: Rules,
    *,
    before: Factors,
    after: Factors = lambda rule: 1.0,
) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(_multiplied(updates, rules, before), state, params)
        return _multiplied(updates, rules, after), state

    return optax.GradientTransformation(inner.init, update)


def _multiplied(tree: Any, rules: Rules, factor: Factors) -> Any:
    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        # Keys of dictionaries name modules and parameters; attributes, what a variable holds.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return factor(rules[".".join(names[-2:])]) * leaf

    return jax.tree_util.tree_map_with_path(one, tree)
