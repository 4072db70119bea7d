"""transformers' own LLaMA on a folder that it loads, a layer at a time, in float32."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.convert.safetensors_reader import INDEX, SINGLE


def require_transformers() -> tuple[Any, Any]:
    """PyTorch and transformers.

    Raises:
        ValueError: If one of the two is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"logits are compared with those of transformers ({error}): "
            "pip install 'llama-jax[torch]'."
        ) from error
    return torch, transformers


class TransformersProgram:
    """What transformers computes: its layer, norm and positions, with the folder's config.

    A model of one layer is given the weights of each layer in turn, read by the safetensors
    library.

    Args:
        folder: That `from_pretrained` loads.

    Raises:
        ValueError: If PyTorch or transformers is not installed, or the files do not hold the
            tensors that `AutoModelForCausalLM` has.
    """

    name = "transformers"

    def __init__(self, folder: Path):
        self._torch, transformers = require_transformers()
        self._folder = folder
        config = transformers.AutoConfig.from_pretrained(folder)
        self._files = _files_of_tensors(folder)
        with self._torch.device("meta"):
            whole = transformers.AutoModelForCausalLM.from_config(config)
        self._check_names(whole.state_dict(), tied=config.tie_word_embeddings)
        self._output = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        one = copy.deepcopy(config)
        one.num_hidden_layers, one.vocab_size, one.pad_token_id = 1, 1, None
        self._model = transformers.AutoModel.from_config(one, dtype=self._torch.float32).eval()
        # Of a layer alone; the norm after all of them comes with the logits.
        self._norm, self._model.norm = self._model.norm, self._torch.nn.Identity()

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """The residual stream before the first layer."""
        table = self._read("model.embed_tokens.weight")
        return table[self._torch.from_numpy(tokens).long()].float().numpy()

    def open_layer(self, index: int) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the residual stream of a row to what a layer makes of it."""
        (layer,) = self._model.layers
        with self._torch.no_grad():
            for name, weight in layer.state_dict().items():
                weight.copy_(self._read(f"model.layers.{index}.{name}"))

        def run(x: np.ndarray) -> np.ndarray:
            with self._torch.no_grad():
                rows = self._torch.from_numpy(x)[None]
                out = self._model(inputs_embeds=rows, use_cache=False)
            return out.last_hidden_state[0].numpy()

        return run

    def open_output(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the last residual stream of a row to logits."""
        table = self._read(f"{self._output}.weight").float()
        with self._torch.no_grad():
            self._norm.weight.copy_(self._read("model.norm.weight"))

        def run(x: np.ndarray) -> np.ndarray:
            with self._torch.no_grad():
                return (self._norm(self._torch.from_numpy(x)[None])[0] @ table.T).numpy()

        return run

    def _read(self, name: str) -> Any:
        from safetensors import safe_open

        with safe_open(self._folder / self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def _check_names(self, wanted: dict[str, Any], *, tied: bool) -> None:
        needed = wanted.keys() - ({"lm_head.weight"} if tied else set())
        if missing := sorted(needed - self._files.keys()):
            raise ValueError(f"{self._folder}: transformers needs {missing[0]}; no file holds it.")


def _files_of_tensors(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    if (folder / INDEX).is_file():
        return json.loads((folder / INDEX).read_text())["weight_map"]
    with safe_open(folder / SINGLE, framework="pt") as file:
        return dict.fromkeys(file.keys(), SINGLE)
