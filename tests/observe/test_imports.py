"""A library is loaded when it is used, not when a command starts."""

import subprocess
import sys


def test_heavy_libraries_wait_until_they_are_used():
    code = (
        "import sys\n"
        "import llama_jax.checkpoint, llama_jax.observe.plots, llama_jax.observe.progress\n"
        "import llama_jax.observe.run_directory, llama_jax.observe.writers\n"
        "heavy = {'orbax', 'tensorstore', 'matplotlib', 'tensorboardX', 'rich', 'wandb'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
