"""`llama-jax plan` answers with numbers that programs can read, and refuses what has no answer."""

import json
import resource
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
    ends = by_law["besiroglu"]["params_interval"]
    assert ends["low"] < by_law["besiroglu"]["params"] < ends["high"]
    levels = {name: (law["tokens_interval"] or {}).get("level") for name, law in by_law.items()}
    assert levels == {
        "besiroglu": 0.95,
        "chinchilla-3": 0.80,
        "chinchilla-1": 0.80,
        "chinchilla-2": 0.80,
        "llama3": None,
    }


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
        (["--flops", "1e10", "--vocab-size", "64"], "vocabulary of 64 comes near; the nearest, 2"),
        (["--params", "1e30"], "--law=besiroglu is asked"),
        (["--flops", "1e21", "--serve-tokens", "-1"], "--serve-tokens=-1.0 must be zero or more"),
        (["--flops", "1e21", "--unique-tokens", "nan"], "--unique-tokens=nan must be zero or"),
        (["--flops", "1e21", "--prompt-share", "1.5"], "--prompt-share=1.5 must be in [0, 1]"),
        (["--flops", "1e21", "--serve-goodput", "0"], "--serve-goodput=0.0 must be in (0, 1]"),
        (
            ["--flops", "1e21", "--decode-usd-per-chip-hour", "2"],
            "--decode-usd-per-chip-hour=2.0 needs --usd-per-chip-hour",
        ),
        (
            ["--flops", "1e16", "--unique-tokens", "1e4"],
            "get all that 10k unique tokens give, to 0.0001 nats per token",
        ),
        (["--flops", "1e21", "--kv-heads", "1000"], "--kv-heads=1000 divides the heads of no"),
        (["--flops", "1e21", "--law", "llama3", "llama3"], "--law names llama3 twice"),
        (["compare", "--serve-tokens", "1e12"], "--serve-tokens is of a plan; give one of"),
        (
            ["compare", "--flops", "1e21", "--days", "3", "--chips", "h100"],
            "got --flops and --days",
        ),
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


@pytest.mark.parametrize("more", [[], ["--serve-tokens", "1e12", "--unique-tokens", "1e10"]])
def test_a_plan_is_drawn(capsys, tmp_path, more):
    picture = tmp_path / "plan.png"
    plan(capsys, "--flops", "1e21", "--picture", str(picture), *more)
    assert picture.stat().st_size > 20_000


def test_two_fitted_laws_are_called_by_their_files_and_judge_one_another(capsys, tmp_path):
    from llama_jax.recipe import to_json
    from llama_jax.scaling.published import BESIROGLU, CHINCHILLA_3

    paths = [tmp_path / name / "law.json" for name in ("one", "two")]
    for path, law in zip(paths, (BESIROGLU, CHINCHILLA_3), strict=True):
        path.parent.mkdir()
        path.write_text(to_json(law))
    (tmp_path / "three.json").write_text(to_json(BESIROGLU))
    names = [str(path) for path in paths]
    answer = plan(capsys, "--flops", "1e21", "--law", *names, str(tmp_path / "three.json"))
    assert [law["law"] for law in answer["laws"]] == [*names, "three.json"]
    regrets = answer["disagreement"]["regret_nats"]
    assert regrets[names[0]][names[1]] > 1e-3


def test_a_size_that_will_be_served_is_written_in_that_size(capsys, tmp_path):
    path = str(tmp_path / "mine.py")
    answer = plan(capsys, "--params", "7e9", "--serve-tokens", "1e13", "--write", path)
    served = answer["laws"][0]["served"]
    assert served["params"] == 7e9
    assert served["tokens"] > answer["laws"][0]["tokens"]
    config = load_recipe(path)
    assert count_params(config.model).total == pytest.approx(7e9, rel=0.02)
    assert config.tokens_before(config.train.num_steps) == pytest.approx(served["tokens"], rel=0.01)


def test_a_recipe_says_what_is_extrapolated_and_takes_the_lower_learning_rate(capsys, tmp_path):
    path = tmp_path / "mine.py"
    run = plan(capsys, "--chips", "v5p:4x4x8", "--days", "14", "--serve-tokens", "1e13",
               "--write", str(path), "--compile-minutes", "0")["run"]  # fmt: skip
    rates = {advice["law"]: advice["peak_lr"] for advice in run["suggestions"]}
    assert run["peak_lr_of"] == "deepseek"
    assert run["peak_lr"] == rates["deepseek"] < rates["step-law"] / 3
    header = " ".join(path.read_text().split('"""')[1].split())
    assert "Warning: Extrapolated: tokens, FLOPs lie outside the data of the law." in header
    assert "is deepseek's beyond its data" in header
    assert "times the critical one" in header
    told = [line for line in path.read_text().splitlines() if line.startswith(("Warning", "   "))]
    assert max(map(len, told)) <= 100


@pytest.mark.parametrize("convention", ["non-embedding", "full-attention", "appendix-f"])
def test_a_budget_may_be_counted_in_another_convention(capsys, convention):
    counted = ("--flop-convention", convention)
    answer = plan(capsys, "--flops", "1e21", *counted)
    assert 0.999e21 < answer["run"]["flops"][convention] <= 1e21
    assert answer["laws"][0]["train_flops"] != pytest.approx(1e21, rel=0.01)
    week = plan(capsys, "--chips", "h100:64", "--days", "7", *counted)
    assert 6.99 < week["cost"]["train_seconds"] / 86_400 <= 7
    assert week["cost"]["mfu_convention"] == convention


def test_training_against_serving_and_all_sums_are_in_the_document(capsys):
    answer = plan(
        capsys, "--flops", "1e22", "--serve-tokens", "1e13", "--prompt-share", "0.5",
        "--usd-per-chip-hour", "2", "--prefill-usd-per-chip-hour", "1",
    )  # fmt: skip
    served, cost = answer["laws"][0]["served"], answer["cost"]
    frontier = served["frontier"]
    assert 5 < len(frontier) <= 25
    by_training = sorted(frontier, key=lambda point: point["train_cost"])
    assert by_training == sorted(frontier, key=lambda point: -point["serve_cost"])
    assert served["cost_unit"] == "usd"
    total = served["train_cost"] + served["serve_cost"]
    assert total <= min(point["train_cost"] + point["serve_cost"] for point in frontier) * 1.0001
    assert cost["total_usd"] == pytest.approx(
        cost["train_usd"] + cost["prefill_usd"] + cost["decode_usd"]
    )
    assert cost["prefill_usd"] == pytest.approx(cost["prefill_chip_hours"] * 1)
    assert cost["decode_usd"] == pytest.approx(cost["decode_chip_hours"] * 2)
    assert cost["total_flops"] == pytest.approx(cost["train_flops"] + cost["serve_flops"])
    # Prefill at 40%, decoding at 5% of the peak; both in 90% of the time.
    assert cost["decode_chip_hours"] == pytest.approx(8 * cost["prefill_chip_hours"])


def test_a_plan_takes_under_two_seconds_of_a_processor(tmp_path):
    arguments = ["plan", "--params", "7e9", "--serve-tokens", "1e13", "--unique-tokens", "1e9"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "llama_jax.cli.main", *arguments], capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Seconds that a busy machine does not stretch; it takes about a third of them.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
