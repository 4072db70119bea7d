"""`llama-jax plan` answers with numbers that programs can read, and refuses what has no answer."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from llama_jax.cli.main import main
from llama_jax.flops import count_params
from llama_jax.pods import lay_over, mesh_over, parse_slices
from llama_jax.recipe import load_pods, load_recipe


def plan(capsys, *arguments):
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *arguments):
    assert main(["plan", *arguments]) == 2
    return capsys.readouterr().err


def test_a_budget_is_answered_by_every_law_within_itself(capsys):
    answer = plan(capsys, "--flops", "5.76e23")
    by_law = {law["law"]: law for law in answer["laws"]}
    assert by_law["chinchilla-3"]["params"] == pytest.approx(40e9, rel=0.01)
    assert by_law["chinchilla-1"]["params"] == pytest.approx(67e9, rel=0.05)
    for law in by_law.values():
        assert law["train_flops"] == pytest.approx(5.76e23)
        assert "flops" in law["extrapolates"]
    low, high = by_law["besiroglu"]["params_interval_95"]
    assert low < by_law["besiroglu"]["params"] < high
    assert by_law["llama3"]["params_interval_95"] is None


def test_the_judge_never_regrets_its_own_choice(capsys):
    regrets = plan(capsys, "--flops", "1e21")["disagreement"]["regret_nats"]
    assert set(regrets) == {"besiroglu", "chinchilla-3"}
    for judge, losses in regrets.items():
        assert losses[judge] == pytest.approx(0, abs=1e-12)
        assert all(loss > -1e-12 for loss in losses.values())
        assert max(losses.values()) > 1e-3


def test_goodput_lengthens_the_run_and_mfu_is_told_apart(capsys):
    whole = plan(capsys, "--params", "1e9", "--chips", "h100:8", "--goodput", "1")["cost"]
    half = plan(capsys, "--params", "1e9", "--chips", "h100:8", "--goodput", "0.5")["cost"]
    assert half["train_seconds"] == pytest.approx(2 * whole["train_seconds"])
    assert (half["train_mfu"], half["goodput"]) == (0.4, 0.5)


def test_money_buys_what_its_price_says(capsys):
    answer = plan(capsys, "--usd", "50000", "--chips", "h100", "--usd-per-chip-hour", "2.5")
    assert answer["request"]["value"] == pytest.approx(20_000 * 3600 * 989e12 * 0.4 * 0.9)
    assert answer["cost"]["train_usd"] == pytest.approx(50_000, rel=0.02)
    # A loss that is asked for is reached, whatever serving does to the training.
    asked = plan(capsys, "--target-loss", "2.2", "--serve-tokens", "1e13")["laws"][0]["served"]
    assert asked["loss_nats_per_token"] == 2.2


@pytest.mark.parametrize(
    "more",
    [(), ("--serve-tokens", "1e13"), ("--serve-tokens", "1e12", "--unique-tokens", "1e10")],
)
def test_what_is_trained_keeps_to_the_days_and_the_money(capsys, more):
    for days in (1, 3, 7, 30):
        answer = plan(capsys, "--chips", "h100:64", "--days", str(days), *more)
        assert 0.98 * days < answer["cost"]["train_seconds"] / 86_400 <= days
    price = ("--chips", "h100", "--usd-per-chip-hour", "2.5")
    answer = plan(capsys, "--usd", "50000", *price, *more)
    assert 49_000 < answer["cost"]["train_usd"] <= 50_000


def test_serving_makes_the_model_smaller_and_costs_decide_how_much(capsys):
    tokens = ("--flops", "1e21", "--serve-tokens", "1e12")
    by_flops = plan(capsys, *tokens)["laws"][0]["served"]
    dear = ("--usd-per-chip-hour", "2", "--decode-mfu", "0.01")
    by_money = plan(capsys, *tokens, *dear)["laws"][0]["served"]
    assert by_money["params"] < by_flops["params"] < plan(capsys, *tokens)["laws"][0]["params"]
    assert by_flops["total_flops"] < by_flops["total_flops_of_best"]


def test_a_written_recipe_is_the_planned_run(capsys, tmp_path):
    for name in ("planned.py", "planned.json"):
        answer = plan(capsys, "--flops", "1e17", "--write", str(tmp_path / name))["run"]
        config = load_recipe(str(tmp_path / name))
        assert config.name == "planned"
        assert count_params(config.model).total == answer["params"]
        assert config.tokens_before(config.train.num_steps) == answer["tokens"]
        assert config.optimizer.peak_lr == pytest.approx(answer["peak_lr"], rel=1e-3)


@pytest.mark.parametrize("name", ["planned.py", "planned.json"])
@pytest.mark.parametrize("pod", ["v5p:2x2x4", "tpu7x:2x2x1", "h100:16"])
def test_a_written_recipe_can_be_laid_over_the_pod_that_it_was_planned_for(
    capsys, tmp_path, name, pod
):
    path = str(tmp_path / name)
    plan(capsys, "--params", "3e9", "--chips", pod, "--write", path, "--compile-minutes", "0")
    slices = parse_slices(pod, "--pod")
    config = load_recipe(path)
    if name == "planned.py":
        config = lay_over(config, load_pods(path), slices)
    assert config.mesh == mesh_over(slices)
    rows = config.train.batch_size / config.train.accumulation_steps / slices.num_devices
    assert rows == int(rows)
    assert rows * config.data.seq_len <= 8192


class Doctor:
    """Stands in for the doctor's process: what it prints, or that it takes too long."""

    def __init__(self, monkeypatch, stdout="", stderr="", code=0, too_slow=False):
        self.commands = []
        self.answer = SimpleNamespace(stdout=stdout, stderr=stderr, returncode=code)
        self.too_slow = too_slow
        monkeypatch.setattr("llama_jax.cli.plan.compiled.subprocess.run", self)
        monkeypatch.setattr(
            "llama_jax.cli.plan.compiled.importlib.util.find_spec",
            lambda name: name if name == "libtpu" else None,
        )

    def __call__(self, command, *, timeout, **_):
        self.commands.append((command[3:], timeout))
        if self.too_slow:
            raise subprocess.TimeoutExpired(command, timeout)
        return self.answer


FITS = {
    "fits": True,
    "memory_bytes_per_device": {"peak": 20 * 2**30, "limit": 95 * 2**30},
    "predicted": {"step_seconds": 1.25, "mfu_causal": 0.456},
    "run": {"days": 3.5},
    "program": {"cycles": 1},
}
ADVICE = "a step needs 101.00 GiB on each device, 95.00 are there: 6.00 GiB too many."
TOO_LARGE = {"fits": False, "needed_bytes": 101, "limit_bytes": 95, "advice": ADVICE}
FOR_V5P = ("--flops", "1e19", "--chips", "v5p:2x2x1")


def test_a_written_recipe_is_compiled_for_its_pod_and_the_verdict_told(
    capsys, tmp_path, monkeypatch
):
    doctor = Doctor(monkeypatch, stdout=json.dumps(FITS))
    path = str(tmp_path / "mine.py")
    answer = plan(capsys, *FOR_V5P, "--write", path, "--compile-minutes", "3")["compiled"]
    (command, timeout) = doctor.commands[0]
    assert command == ["doctor", path, "--pod", "v5p:2x2x1", "--goodput", "0.9", "--json"]
    assert timeout == 180
    assert answer["fits"] is True
    assert answer["predicted"]["step_seconds"] == 1.25
    assert "program" not in answer
    assert main(["plan", *FOR_V5P, "--write", str(tmp_path / "mine.json")]) == 0
    out, told = capsys.readouterr()
    assert "Compiled: fits, 20.0 of 95.0 GiB on each device, 75.0 to spare." in out
    assert "1.25 s a step, MFU 45.6%" in out
    assert "compiling for v5p:2x2x1" in told
    assert doctor.commands[1][0][2] == "--topology"


@pytest.mark.parametrize(
    ("process", "fits", "told"),
    [
        ({"stdout": json.dumps(TOO_LARGE), "code": 2}, False, "6.00 GiB too many"),
        ({"stderr": "noise\nllama-jax: error: mesh.fsdp=3\n", "code": 2}, None, "mesh.fsdp=3"),
        ({"code": -6}, None, "exit code -6"),
        ({"too_slow": True}, None, "longer than --compile-minutes=10"),
    ],
)
def test_what_does_not_compile_is_said_and_the_plan_stands(
    capsys, tmp_path, monkeypatch, process, fits, told
):
    Doctor(monkeypatch, **process)
    answer = plan(capsys, *FOR_V5P, "--write", str(tmp_path / "mine.py"))
    assert answer["compiled"]["fits"] is fits
    assert told in answer["compiled"]["told"]
    assert answer["run"]["params"] > 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--chips", "h100:8"], "pip install 'llama-jax[cuda]'"),
        ([], "no --chips were named"),
        (["--chips", "v5p:2x2x1", "--compile-minutes", "0"], "--compile-minutes=0 leaves it out"),
    ],
)
def test_without_the_pods_compiler_nothing_is_compiled_and_the_command_is_told(
    capsys, tmp_path, monkeypatch, arguments, why
):
    doctor = Doctor(monkeypatch)
    path = tmp_path / "mine.py"
    assert main(["plan", "--flops", "1e19", *arguments, "--write", str(path)]) == 0
    out = capsys.readouterr().out
    assert not doctor.commands
    assert "Not compiled: " in out
    assert why in out
    assert f"llama-jax doctor {path}" in out


def test_repeated_tokens_are_counted_in_epochs(capsys):
    answer = plan(capsys, "--flops", "1e22", "--unique-tokens", "25e9", "--law", "muennighoff")[
        "laws"
    ][0]
    assert answer["epochs"] == pytest.approx(9.488, rel=1e-3)
    assert answer["params"] == pytest.approx(7.0262e9, rel=1e-3)


def test_laws_without_a_loss_say_so_where_a_loss_is_asked_for(capsys):
    answer = plan(capsys, "--target-loss", "2.3")
    assert set(answer["without_answer"]) == {"chinchilla-1", "chinchilla-2", "llama3"}
    assert answer["laws"][0]["loss_nats_per_token"] == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--law", "besiroglu"], "Give exactly one of"),
        (["--flops", "1e21", "--params", "1e9"], "got --flops and --params"),
        (["--flops", "-1"], "--flops=-1.0 must be positive"),
        (["--flops", "nan"], "--flops=nan must be positive"),
        (["--flops", "1e21", "--law", "chinchila-3"], "Did you mean chinchilla-3"),
        (["--flops", "1e21", "--law", "missing.json"], "there is no such file"),
        (["--chips", "v5p:4x4x7", "--days", "1"], "Did you mean v5p:4x4x8"),
        (["--chips", "v55:4", "--days", "1"], "is no chip. Did you mean v5"),
        (["--chips", "h100:12", "--days", "1"], "comes in nodes of 8"),
        (["--days", "3"], "--days=3.0 needs --chips"),
        (["--usd", "100"], "--usd needs --usd-per-chip-hour"),
        (["--target-loss", "1.2"], "must be above"),
        (["--flops", "1e9"], "is too few: a vocabulary of 8192"),
        (
            [
                "--flops",
                "1e13",
                "--vocab-size",
                "64",
                "--chips",
                "v5p:16x16x24",
                "--seq-len",
                "2048",
            ],
            "under one batch of 12,582,912",
        ),
        (["--flops", "1e10", "--vocab-size", "64"], "no shape comes near"),
        (["--params", "1e30"], "no shape comes near"),
        (["--target-loss", "2.0", "--unique-tokens", "1e9"], "is not reached with 1,000,000,000"),
        (["--flops", "1e21", "--goodput", "1.5"], "--goodput=1.5 must be in (0, 1]"),
        (["--flops", "1e21", "--write", "recipe.txt"], "must end in .py or .json"),
        (["compere"], "Did you mean plan compare?"),
    ],
)
def test_what_has_no_answer_is_refused(capsys, arguments, complaint):
    assert complaint in refusal(capsys, *arguments)


def test_an_existing_recipe_is_never_overwritten(capsys, tmp_path):
    (tmp_path / "mine.py").write_text("kept")
    assert "exists; name a new file" in refusal(
        capsys, "--flops", "1e17", "--write", str(tmp_path / "mine.py")
    )
    assert (tmp_path / "mine.py").read_text() == "kept"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--flops", "1e21"],
        ["plan", "--chips", "v5p:4x4x8", "--days", "14", "--unique-tokens", "1e11", "--write"],
        ["plan", "compare"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_plan_needs_neither_jax_nor_numpy(arguments, tmp_path):
    if arguments[-1] == "--write":
        arguments = [*arguments, str(tmp_path / "mine.py"), "--compile-minutes", "0"]
    code = (
        f"import sys\nfrom llama_jax.cli.main import main\nmain({arguments!r})\n"
        "print(sorted({'jax', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1] == "[]"
    assert "besiroglu" in run.stdout


def test_gpt_3_was_trained_too_little_and_llama_7b_pays_where_it_is_served(capsys):
    assert main(["plan", "compare", "--json"]) == 0
    runs = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert runs["GPT-3 175B"]["verdict"].startswith("under")
    assert runs["GPT-3 175B"]["served_tokens_break_even"] is None
    assert runs["Chinchilla 70B"]["verdict"] == "about right"
    assert runs["LLaMA-1 7B"]["verdict"].startswith("over")
    assert 1e11 < runs["LLaMA-1 7B"]["served_tokens_break_even"] < 1e12
    assert runs["LLaMA-1 7B"]["served_tokens_that_justify"] > 1e12
    assert all(run["nats_above_best"] >= 0 for run in runs.values())
    assert main(["plan", "compare", "--law", "llama3"]) == 2
    assert "is a frontier without a loss" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--serve-tokens", "1e12", "--unique-tokens", "1e10"]])
def test_a_plan_is_drawn(capsys, tmp_path, more):
    picture = tmp_path / "plan.png"
    plan(capsys, "--flops", "1e21", "--picture", str(picture), *more)
    assert picture.stat().st_size > 20_000


def test_tables_star_what_lies_beyond_a_laws_data(capsys):
    assert main(["plan", "--flops", "1e21"]) == 0
    inside = capsys.readouterr().out
    assert main(["plan", "--flops", "1e25", "--serve-tokens", "1e13"]) == 0
    beyond = capsys.readouterr().out
    assert "extrapolated" in beyond
    assert "extrapolated" not in inside
    assert "besiroglu*" in beyond
    assert "in all" in beyond
