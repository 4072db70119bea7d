"""What people do with a saved LLaMA in transformers works on our export.

The behaviours are those that transformers' own tests ask of a model on disk (its repository,
tests/test_modeling_common.py and tests/generation/test_utils.py), which its wheel leaves out:
loading with every dtype and attention, saving again, generating with and without a cache, batches
padded on the left, other lengths of the vocabulary, pipelines.
"""

import json

import pytest

from llama_jax.cli.main import main
from tests.infer.saved_run import write_run

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export in several files, with its tokenizer."""
    folder = tmp_path_factory.mktemp("saved")
    write_run(folder / "run")
    arguments = [str(folder / "run"), str(folder / "hf"), "--max-shard-gigabytes", "50e-6"]
    assert main(["convert", "to-hf", *arguments]) == 0
    assert (folder / "hf" / "model.safetensors.index.json").is_file()
    return folder / "hf"


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def batch(tokenizer):
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer(["one", "a longer text of several words"], padding=True, return_tensors="pt")


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits.float()


def test_nothing_is_missing_and_nothing_is_left_over(folder):
    _, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize("dtype", ["auto", torch.float32, torch.bfloat16, torch.float16])
def test_it_loads_in_every_dtype(folder, model, dtype, batch):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    assert loaded.dtype == (torch.float32 if dtype == "auto" else dtype)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(loaded.dtype)), name
    assert logits(loaded, **batch).isfinite().all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_of_either_kind_computes_the_same(folder, model, attention, batch):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention
    ).eval()
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(
        logits(loaded, **batch)[seen], logits(model, **batch)[seen], atol=1e-4, rtol=0
    )


def test_saving_again_changes_no_weight_and_comes_back_here(folder, model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "again", max_shard_size="50kB")
    tokenizer.save_pretrained(tmp_path / "again")
    assert main(["convert", "check", str(folder), str(tmp_path / "again")]) == 0
    before = json.loads((folder / "config.json").read_text())
    after = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: after.get(key, value) for key, value in before.items()} == before
    assert main(["convert", "from-hf", str(tmp_path / "again"), str(tmp_path / "run")]) == 0


def test_a_cache_changes_no_token(model, batch):
    arguments = {"max_new_tokens": 20, "do_sample": False}
    cached, bare = (model.generate(**batch, use_cache=use, **arguments) for use in (True, False))
    assert cached.tolist() == bare.tolist()


def test_padding_on_the_left_changes_no_token(model, tokenizer, batch):
    alone = tokenizer("one", return_tensors="pt")
    assert batch["input_ids"].shape[1] > alone["input_ids"].shape[1]
    arguments = {"max_new_tokens": 10, "do_sample": False}
    told = model.generate(**alone, **arguments)[0, alone["input_ids"].shape[1] :]
    in_batch = model.generate(**batch, **arguments)[0, batch["input_ids"].shape[1] :]
    assert told.tolist() == in_batch[: told.numel()].tolist()


def test_embeddings_can_be_given_for_ids(model, batch):
    embedded = model.get_input_embeddings()(batch["input_ids"])
    inputs = {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"]}
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(logits(model, **inputs)[seen], logits(model, **batch)[seen])


def test_the_loss_of_labels_has_gradients_everywhere(folder, batch):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).train()
    loaded(**batch, labels=batch["input_ids"]).loss.backward()
    for name, weight in loaded.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_the_vocabulary_can_grow(folder):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    before = loaded.get_input_embeddings().weight.detach().clone()
    loaded.resize_token_embeddings(len(before) + 3, mean_resizing=False)
    assert loaded.config.vocab_size == len(before) + 3
    torch.testing.assert_close(loaded.get_input_embeddings().weight[: len(before)], before)


def test_texts_go_through_the_tokenizer_and_come_back(tokenizer):
    for text in ("def main():\n    return 1", "  two  spaces", "naïve 漢字"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.chat_template is None


def test_a_pipeline_continues_a_text(folder):
    pipeline = transformers.pipeline("text-generation", model=str(folder))
    told = pipeline("import", max_new_tokens=5, do_sample=False)
    assert told[0]["generated_text"].startswith("import")
