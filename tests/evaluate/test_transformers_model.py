"""Models of the transformers library: read as trees where that is exact, and one by one where it is not."""

from __future__ import annotations

import pytest
import torch

from fewshot.bench.harness import save_small_model
from fewshot.evaluate.models import load
from fewshot.evaluate.score import Scorer, Span
from fewshot.evaluate.transformers_model import TransformersReader, TransformersTokenizer
from fewshot.generate.beam import beam_search
from fewshot.tokenizer.bpe import train_bpe

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "gpt2": (True, lambda t: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2))),
    "llama": (True, lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, intermediate_size=64, num_key_value_heads=2))),
    "gpt-neox": (True, lambda t: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL, intermediate_size=64))),
    "opt": (None, lambda t: t.OPTForCausalLM(t.OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32))),
    "bloom": (None, lambda t: t.BloomForCausalLM(t.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=2))),
    "mamba": (False, lambda t: t.MambaForCausalLM(
        t.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4))),
    "mistral": (False, lambda t: t.MistralForCausalLM(
        t.MistralConfig(**SMALL, intermediate_size=64, num_key_value_heads=2, sliding_window=8))),
    "gpt-neo": (False, lambda t: t.GPTNeoForCausalLM(
        t.GPTNeoConfig(vocab_size=97, hidden_size=32, num_layers=2, num_heads=2, window_size=8,
                       attention_types=[[["global", "local"], 1]]))),
}  # fmt: skip


def make(name: str):
    torch.manual_seed(0)
    model = MODELS[name][1](transformers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # far from uniform
    return model


@pytest.mark.parametrize("name", MODELS)
def test_spans_with_shared_beginnings_score_as_the_model_itself_does(name):
    model = make(name)
    reader = TransformersReader(model)
    assert MODELS[name][0] in (None, reader.branching)
    generator = torch.Generator().manual_seed(3)
    shown = tuple(torch.randint(97, (30,), generator=generator).tolist())
    spans = [Span((*shown, q, q + 1, *choice), 32) for q in range(0, 40, 9) for choice in ((1, 2, 3), (1, 2, 4), (50,))]
    scorer = Scorer(reader, batch_size=3)
    for span, found in zip(spans, scorer.score(spans), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([span.tokens[:-1]])).logits[0, span.start - 1 :].log_softmax(-1)
        targets = torch.tensor(span.tokens[span.start :])
        assert found.logprob == pytest.approx(logprobs.gather(1, targets[:, None]).sum().item(), abs=1e-3)
    assert bool(scorer.known) == reader.branching


class Letters:
    """A tokenizer of 97 letters; the last ends a text."""

    eot, n_vocab = 96, 97

    def decode_bytes(self, ids):
        return "".join(chr(33 + i) for i in ids).encode()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "mamba"])
@pytest.mark.parametrize("beams", [1, 3])
def test_beams_are_those_of_the_library(name, beams):
    model = make(name)
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(96, (n,), generator=generator).tolist() for n in (3, 9, 9, 20)]
    ours = beam_search(
        TransformersReader(model).steps(), Letters(), prompts, n_ctx=99, max_tokens=7, beams=beams, length_penalty=0.0
    )
    for prompt, found in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=7,
            num_beams=beams, do_sample=False, length_penalty=0.0, eos_token_id=96, pad_token_id=96,
        )[0, len(prompt) :].tolist()  # fmt: skip
        while len(theirs) > 1 and theirs[-2:] == [96, 96]:
            theirs.pop()
        assert list(found.tokens) == theirs


def test_a_saved_model_is_loaded_by_its_path_with_its_tokenizer(tmp_path):
    texts = ["some words to learn from, and more of the words " * 20]
    save_small_model(tmp_path, texts)
    loaded = load(f"hf:{tmp_path}")
    ours = train_bpe(texts, n_vocab=400)
    text = "some wörds\n\n of more 日本"
    assert loaded.tokenizer.encode(text) == ours.encode(text)
    assert loaded.tokenizer.decode_bytes(loaded.tokenizer.encode(text)) == text.encode()
    assert (loaded.tokenizer.eot, loaded.tokenizer.n_vocab) == (ours.eot, ours.n_vocab)
    assert loaded.reader.n_ctx == 512


def test_a_tokenizers_own_beginning_stands_before_every_text_as_the_harness_has_it(tmp_path):
    """As Llama's: a token of its own before each text, another one at its end."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    from fewshot.evaluate.lm_eval_model import FewshotLM

    save_small_model(tmp_path, ["some words to learn from, and more of the words " * 20])
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    fast.add_special_tokens({"bos_token": "w"})  # any token will do
    bos = fast.bos_token_id
    fast.backend_tokenizer.post_processor = TemplateProcessing(single="w $A", special_tokens=[("w", bos)])
    fast.save_pretrained(tmp_path)
    ours, theirs = FewshotLM(path=f"hf:{tmp_path}"), HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32")
    assert ours.loaded.tokenizer.start == bos != ours.loaded.tokenizer.eot
    asked = [("some words", " to learn"), ("", "more of"), ("from, ", "and")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
    for mine, its in zip(ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True), strict=True):
        assert mine[0] == pytest.approx(its[0], abs=1e-4)
    writing = [Instance("generate_until", {}, ("some words", {"until": ["\n"], "max_gen_toks": 6}), 0)]
    assert ours.generate_until(writing) == theirs.generate_until(writing, disable_tqdm=True)


def test_a_sentencepiece_tokens_bytes_are_its_text_with_spaces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    plain = Tokenizer(models.BPE({"</s>": 0, "▁a": 1, "b": 2, "<0x0A>": 3, "▁": 4, "a": 5}, [("▁", "a")]))
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    plain.decoder = decoders.Metaspace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>")
    assert TransformersTokenizer(fast).decode_bytes([1, 2, 3, 0, 4]) == b" ab\n "


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    from fewshot.base.errors import BadFile

    with pytest.raises(BadFile, match="transformers cannot load"):
        load(f"hf:{tmp_path / 'absent'}")
