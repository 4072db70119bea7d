"""Continue prompts with a checkpoint."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional, UseAppendAction

from llama_jax.cli.run_reader import find_run_tokenizer, read_config, read_model
from llama_jax.config import MeshConfig, RunConfig
from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import read_only_copy

_DESCRIPTION = """Continues prompts with the newest checkpoint of a run.

A single completion is printed as it is drawn, several when all are done. Sample n of each
prompt has the seed `--seed` + n, and does not depend on the others beside it.

example:
  llama-jax generate demo_run/model --prompt "def main(" --temperature 0.7
  echo -n "import " | llama-jax generate demo_run/model --num-samples 3 --json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to continue, and how.

    Attributes:
        run_dir: Folder that `llama-jax train` wrote.
        prompt: Text to continue; give it again for more prompts. Without any, stdin is read.
        step: Of the checkpoint; the newest by default.
        max_new_tokens: For each completion, at most.
        temperature: Divides the logits; 0 always takes the most probable token.
        top_k: Only the most probable tokens, this many; 0 allows all.
        top_p: Only the fewest tokens whose probabilities reach this sum; 1 allows all.
        seed: Of the first sample of each prompt.
        num_samples: Completions of each prompt.
        stop_id: A token id that ends a completion, beside the end of the document.
        tensor: Devices that split the model; of several processes, all they have.
        json: Whether to print one JSON document instead of text.
    """

    run_dir: Positional[Path]
    prompt: UseAppendAction[tuple[str, ...]] = ()
    step: int | None = None
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    num_samples: int = 1
    stop_id: UseAppendAction[tuple[int, ...]] = ()
    tensor: int = 1
    json: bool = False


@dataclasses.dataclass(kw_only=True)
class _Clock:
    """When the command began, when its first tokens came, and how many came after them."""

    began: float
    first: float = 0.0
    num_first: int = 0
    num_tokens: int = 0

    def count(self, tokens: Sequence[int]) -> None:
        now = time.perf_counter()
        self.first = self.first or now
        # The other rows' first tokens come in the same moment.
        if now - self.first < 1e-3:
            self.num_first += len(tokens)
        self.num_tokens += len(tokens)

    def report(self) -> dict[str, float]:
        rate = (self.num_tokens - self.num_first) / (time.perf_counter() - self.first)
        return {
            "seconds_to_first_token": round(self.first - self.began, 3),
            "tokens_per_second": round(rate, 1),
            "new_tokens": self.num_tokens,
        }


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    clock = _Clock(began=time.perf_counter())
    options = tyro.cli(Options, prog="llama-jax generate", description=_DESCRIPTION, args=argv)
    # Refused before JAX is imported: what is wrong with a request should be said at once.
    asked = options.run_dir
    options = dataclasses.replace(options, run_dir=read_only_copy(asked))
    config = read_config(options.run_dir)
    if options.num_samples < 1:
        raise ValueError(f"--num-samples={options.num_samples} must be positive.")
    if not 0 <= options.seed < 1 << 32:
        raise ValueError(f"--seed={options.seed} must be in [0, 2**32).")
    from llama_jax.train import processes

    if not options.prompt and processes.find_arguments(os.environ) is not None:
        raise ValueError("stdin is read by one process alone: give several --prompt TEXT.")
    prompts = list(options.prompt) or [_read_stdin()]
    processes.join()
    with processes.failing_alone():
        processes.meet()
        step, results = _generate(options, config, prompts, clock)
    if not processes.is_first():
        return 0
    timing = clock.report()
    if options.json:
        document = {
            "run_dir": shown(asked),
            "name": config.name,
            "step": step,
            "completions": results,
        }
        print(json.dumps(document | timing, ensure_ascii=False))
    elif len(results) > 1:
        for result in results:
            print(f"--- seed {result['seed']}, {result['finish']}\n{result['prompt']}", end="")
            print(result["text"])
    print(
        f"{config.name} at step {step}: first token after "
        f"{timing['seconds_to_first_token']:.2f} s, then "
        f"{timing['tokens_per_second']:,.0f} tokens/s; {timing['new_tokens']} tokens",
        file=sys.stderr,
    )
    return 0


def _generate(
    options: Options, config: RunConfig, prompts: list[str], clock: _Clock
) -> tuple[int, list[dict[str, Any]]]:
    from llama_jax.cli.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    from flax import nnx

    from llama_jax.data.tokenizer import load_tokenizer
    from llama_jax.infer.generate import check_prompts, generate, in_compute_dtype
    from llama_jax.infer.sampling import Sampling
    from llama_jax.infer.text_stream import TextStream
    from llama_jax.sharding import make_mesh, use_layout
    from llama_jax.train.processes import is_first

    sampling = Sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    tokenizer = load_tokenizer(find_run_tokenizer(options.run_dir, config))
    encoded = [tokenizer.encode(prompt, bos=True).tolist() for prompt in prompts]
    check_prompts(config.model, encoded)
    rows = [row for row in zip(prompts, encoded, strict=True) for _ in range(options.num_samples)]
    seeds = [(options.seed + n) % (1 << 32) for _ in prompts for n in range(options.num_samples)]
    streams = [TextStream(tokenizer.decode, ids) for _, ids in rows]
    texts = [""] * len(rows)
    aloud = len(rows) == 1 and not options.json and is_first()

    def say(row: int, text: str) -> None:
        texts[row] += text
        if aloud:
            print(text, end="", flush=True)

    def on_tokens(row: int, tokens: list[int]) -> None:
        clock.count(tokens)
        ends = tokens[-1] == tokenizer.eos_id
        say(row, streams[row].push(tokens[:-1] if ends else tokens))

    devices = _devices(options.tensor)
    with use_layout(make_mesh(MeshConfig(fsdp=1, tensor=options.tensor), devices=devices)):
        saved = read_model(options.run_dir, config, options.step, verify=False)
        model = in_compute_dtype(nnx.merge(saved.graphdef, saved.params))
        if aloud:
            print(rows[0][0], end="", flush=True)
        completions = generate(
            model,
            [ids for _, ids in rows],
            max_new_tokens=options.max_new_tokens,
            sampling=sampling,
            seeds=seeds,
            stop_ids=[tokenizer.eos_id, *options.stop_id],
            num_ids=tokenizer.vocab_size,
            on_tokens=on_tokens,
        )
    for row, stream in enumerate(streams):
        say(row, stream.flush())
    if aloud:
        print()
    results = [
        {
            "prompt": prompt,
            "seed": seed,
            "text": text,
            "tokens": completion.tokens,
            "finish": completion.finish,
        }
        for (prompt, _), seed, text, completion in zip(rows, seeds, texts, completions, strict=True)
    ]
    return saved.step, results


def _devices(count: int) -> list[Any]:
    import jax

    devices = jax.devices()
    if jax.process_count() > 1 and count != len(devices):
        raise ValueError(
            f"--tensor={count} must be {len(devices)} here: several processes split the model over "
            "all their devices."
        )
    if not 1 <= count <= len(devices):
        raise ValueError(f"--tensor={count} must be in [1, {len(devices)}]: the devices there are.")
    return devices[:count]


def _read_stdin() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError('name a text to continue: --prompt "TEXT", or give it on stdin.')
    return sys.stdin.read().removesuffix("\n")
