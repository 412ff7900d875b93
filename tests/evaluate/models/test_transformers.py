"""Models of the transformers library: read as trees where that is exact, and one by one where it is not."""

from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.bench.harness import save_small_model
from fewshot.evaluate.load import load
from fewshot.evaluate.models.transformers import TransformersLanguageModel, _reads_everything
from fewshot.evaluate.models.transformers_tokenizer import TransformersTokenizer
from fewshot.evaluate.scoring.logprobs import Scorer, Span
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

GEMMA = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}


def make(name: str):
    torch.manual_seed(0)
    return far_from_uniform(MODELS[name][1](transformers).eval())


def far_from_uniform(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_spans_with_shared_beginnings_score_as_the_model_itself_does(name):
    model = make(name)
    lm = TransformersLanguageModel(model)
    assert MODELS[name][0] in (None, lm.branching)
    generator = torch.Generator().manual_seed(3)
    shown = tuple(torch.randint(97, (30,), generator=generator).tolist())
    spans = [Span((*shown, q, q + 1, *choice), 32) for q in range(0, 40, 9) for choice in ((1, 2, 3), (1, 2, 4), (50,))]
    scorer = Scorer(lm, batch_size=3)
    for span, result in zip(spans, scorer.score(spans), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([span.tokens[:-1]])).logits[0, span.start - 1 :].log_softmax(-1)
        targets = torch.tensor(span.tokens[span.start :])
        assert result.logprob == pytest.approx(logprobs.gather(1, targets[:, None]).sum().item(), abs=1e-3)
    assert bool(scorer.known) == lm.branching


class Letters:
    """A tokenizer of 97 letters; the last ends a text."""

    eot, n_vocab = 96, 97
    pieces_stand_alone = True

    def decode_bytes(self, ids):
        return "".join(chr(33 + i) for i in ids).encode()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "mamba"])
@pytest.mark.parametrize("beams", [1, 3])
def test_beams_are_those_of_the_library(name, beams):
    model = make(name)
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(96, (n,), generator=generator).tolist() for n in (3, 9, 9, 20)]
    ours = beam_search(
        TransformersLanguageModel(model).steps(),
        Letters(),
        prompts,
        n_ctx=99,
        max_tokens=7,
        beams=beams,
        length_penalty=0.0,
    )
    for prompt, completion in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=7,
            num_beams=beams, do_sample=False, length_penalty=0.0, eos_token_id=96, pad_token_id=96,
        )[0, len(prompt) :].tolist()  # fmt: skip
        while len(theirs) > 1 and theirs[-2:] == [96, 96]:
            theirs.pop()
        assert list(completion.tokens) == theirs


def test_a_saved_model_is_loaded_by_its_path_with_its_tokenizer(tmp_path):
    texts = ["some words to learn from, and more of the words " * 20]
    save_small_model(tmp_path, texts)
    loaded = load(f"hf:{tmp_path}")
    ours = train_bpe(texts, n_vocab=400)
    text = "some wörds\n\n of more 日本"
    assert loaded.tokenizer.encode(text) == ours.encode(text)
    assert loaded.tokenizer.decode_bytes(loaded.tokenizer.encode(text)) == text.encode()
    assert (loaded.tokenizer.eot, loaded.tokenizer.n_vocab) == (ours.eot, ours.n_vocab)
    assert loaded.lm.n_ctx == 512


def test_a_tokenizers_own_beginning_stands_before_every_text_as_the_harness_has_it(tmp_path):
    """As Llama's: a token of its own before each text, another one at its end."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    from fewshot.evaluate.models.lm_eval import FewshotLM

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
    with pytest.raises(BadFile, match="does not exist"):
        load(f"hf:{tmp_path / 'absent'}")


BERT = {**SMALL, "intermediate_size": 64}
DECODER = {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64}
XLM = {"vocab_size": 97, "emb_dim": 32, "n_layers": 2, "n_heads": 4}
AHEAD = {
    "bert": lambda t: t.BertLMHeadModel(t.BertConfig(**BERT)),
    "roberta": lambda t: t.RobertaForCausalLM(t.RobertaConfig(**BERT)),
    "electra": lambda t: t.ElectraForCausalLM(t.ElectraConfig(**BERT, embedding_size=32)),
    "xlm": lambda t: t.XLMWithLMHeadModel(t.XLMConfig(**XLM)),
    "xlnet": lambda t: t.XLNetLMHeadModel(t.XLNetConfig(vocab_size=97, d_model=32, n_layer=2, n_head=4, d_inner=64)),
    "big-bird": lambda t: t.BigBirdForCausalLM(t.BigBirdConfig(**BERT)),
    "camembert": lambda t: t.CamembertForCausalLM(t.CamembertConfig(**BERT)),
    "data2vec": lambda t: t.Data2VecTextForCausalLM(t.Data2VecTextConfig(**BERT)),
    "megatron-bert": lambda t: t.MegatronBertForCausalLM(t.MegatronBertConfig(**BERT)),
    "xlm-roberta": lambda t: t.XLMRobertaForCausalLM(t.XLMRobertaConfig(**BERT)),
}
NOT_AHEAD = {
    "bert as a decoder": lambda t: t.BertLMHeadModel(t.BertConfig(**BERT, is_decoder=True)),
    "roberta as a decoder": lambda t: t.RobertaForCausalLM(t.RobertaConfig(**BERT, is_decoder=True)),
    "causal xlm": lambda t: t.XLMWithLMHeadModel(t.XLMConfig(**XLM, causal=True)),
    "bart's decoder": lambda t: t.BartForCausalLM(t.BartConfig(vocab_size=97, d_model=32, **DECODER)),
    "experts": lambda t: t.MixtralForCausalLM(t.MixtralConfig(**BERT, num_key_value_heads=2, num_local_experts=3)),
    "openai's first": lambda t: t.OpenAIGPTLMHeadModel(
        t.OpenAIGPTConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=2)
    ),
    "rwkv": lambda t: t.RwkvForCausalLM(t.RwkvConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2)),
}


@pytest.mark.parametrize("untrained", [True, False])
@pytest.mark.parametrize("name", AHEAD)
def test_a_model_that_reads_ahead_is_refused(name, untrained):
    """Also as it is made: untrained, its scores hang least on the tokens that follow."""
    torch.manual_seed(0)
    model = AHEAD[name](transformers)
    if not untrained:
        model = far_from_uniform(model).to(torch.bfloat16)
    with pytest.raises(BadValue, match="reads ahead: its scores change with the tokens that follow"):
        TransformersLanguageModel(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*NOT_AHEAD, *MODELS])
def test_a_causal_model_is_not_taken_for_one_that_reads_ahead(name, dtype):
    torch.manual_seed(0)
    model = NOT_AHEAD[name](transformers) if name in NOT_AHEAD else make(name)
    TransformersLanguageModel(model.to(dtype))


@pytest.mark.parametrize("name", NOT_AHEAD)
def test_the_batch_size_does_not_change_scores(name):
    torch.manual_seed(0)
    lm = TransformersLanguageModel(NOT_AHEAD[name](transformers))
    generator = torch.Generator().manual_seed(3)
    spans = [Span(tuple(torch.randint(5, 97, (n,), generator=generator).tolist()), n - 2) for n in (5, 9, 17, 18, 30)]
    alone, together = (Scorer(lm, batch_size=n).score(spans) for n in (1, 5))
    assert [score.logprob for score in alone] == pytest.approx([score.logprob for score in together], abs=1e-3)


BLOOM = {"vocab_size": 97, "hidden_size": 32, "n_layer": 1, "n_head": 2}
LENGTHS = {
    "gpt2": (48, lambda t: t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=2, n_positions=48))),
    "mpt": (48, lambda t: t.MptForCausalLM(
        t.MptConfig(vocab_size=97, d_model=32, n_layers=1, n_heads=2, max_seq_len=48))),
    "ctrl": (48, lambda t: t.CTRLLMHeadModel(
        t.CTRLConfig(vocab_size=97, n_embd=32, n_layer=1, n_head=2, dff=64, n_positions=48))),
    "rwkv": (48, lambda t: t.RwkvForCausalLM(
        t.RwkvConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, context_length=48))),
    "llama": (48, lambda t: t.LlamaForCausalLM(t.LlamaConfig(**BERT, max_position_embeddings=48))),
    "a length of -1": (2048, lambda t: t.LlamaForCausalLM(t.LlamaConfig(**BERT, max_position_embeddings=-1))),
    "a length of 0": (2048, lambda t: t.LlamaForCausalLM(t.LlamaConfig(**BERT, max_position_embeddings=0))),
    "no length": (2048, lambda t: t.BloomForCausalLM(t.BloomConfig(**BLOOM))),
    "an older name": (48, lambda t: t.BloomForCausalLM(t.BloomConfig(**BLOOM, seq_length=48))),
    "positions kept for padding": (48, lambda t: t.RobertaForCausalLM(
        t.RobertaConfig(**BERT, is_decoder=True, max_position_embeddings=50, pad_token_id=1))),
    "an offset of two": (48, lambda t: t.OPTForCausalLM(
        t.OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=48))),
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_a_model_reads_as_many_tokens_as_it_can_and_no_more(name, capsys):
    n_ctx, model = LENGTHS[name]
    torch.manual_seed(0)
    lm = TransformersLanguageModel(model(transformers))
    assert lm.n_ctx == n_ctx
    span = Span(tuple(5 + i % 90 for i in range(n_ctx + 1)), n_ctx - 1)
    assert Scorer(lm, batch_size=2).score([span])[0].n_tokens == 2
    assert ("names no context length: 2,048" in capsys.readouterr().err) == (n_ctx == 2048)


def test_a_context_too_short_for_any_question_is_refused():
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=2, n_positions=2)
    with pytest.raises(BadValue, match="reads 2 tokens, which is too few"):
        TransformersLanguageModel(transformers.GPT2LMHeadModel(config))


def test_weights_that_are_no_numbers_are_said_before_anything_else(capsys):
    model = make("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        TransformersLanguageModel(model)
    assert "as one tree" not in capsys.readouterr().err


def test_numbers_that_overflow_for_some_tokens_alone_are_no_score():
    model = make("gpt2")
    lm = TransformersLanguageModel(model)
    with torch.no_grad():
        model.transformer.wte.weight[96] = float("inf")
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        Scorer(lm, batch_size=1).score([Span((1, 2, 3, 96, 4), 4)])


def test_layers_that_read_by_chunks_are_not_read_as_trees():
    config = transformers.LlamaConfig(**BERT, attention_chunk_size=8)
    assert not TransformersLanguageModel(transformers.LlamaForCausalLM(config)).branching


READ_EVERYTHING = {
    "mixtral": lambda t: t.MixtralForCausalLM(
        t.MixtralConfig(**BERT, num_key_value_heads=2, num_local_experts=3, sliding_window=None)
    ),
    "granite": lambda t: t.GraniteMoeForCausalLM(
        t.GraniteMoeConfig(**BERT, num_key_value_heads=2, num_local_experts=3)
    ),
}
READ_BY_WINDOWS = {
    "mixtral": lambda t: t.MixtralForCausalLM(
        t.MixtralConfig(**BERT, num_key_value_heads=2, num_local_experts=3, sliding_window=8)
    ),
    "gpt-neo": MODELS["gpt-neo"][1],
    "gemma 2": lambda t: t.Gemma2ForCausalLM(t.Gemma2Config(**GEMMA, sliding_window=64)),
    "gemma 3": lambda t: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**GEMMA, sliding_window=64)),
}


@pytest.mark.parametrize("name", READ_EVERYTHING)
def test_models_of_local_experts_are_read_as_trees(name):
    torch.manual_seed(0)
    assert TransformersLanguageModel(READ_EVERYTHING[name](transformers)).branching


@pytest.mark.parametrize("name", READ_BY_WINDOWS)
def test_layers_with_windows_are_not_read_as_trees_even_where_the_window_is_longer_than_the_trial(name):
    torch.manual_seed(0)
    assert not TransformersLanguageModel(READ_BY_WINDOWS[name](transformers)).branching


@pytest.mark.parametrize(
    ("setting", "is_window"),
    [
        ("num_local_experts", False),
        ("num_experts", False),
        ("local_attention", True),
        ("local_attention_window_len", True),
        ("local_radius", True),
        ("local_attn_chunk_length", True),
        ("index_local_blocks", True),
        ("window_size", True),
        ("attention_chunk_size", True),
        ("sliding_window_pattern", True),
        ("max_window_layers", True),
    ],
)
def test_which_settings_speak_of_a_window(setting, is_window):
    config = transformers.PretrainedConfig(**{setting: 4})
    assert _reads_everything(config) is not is_window
