"""Complete a prompt with the model of a run; the text is streamed to standard output.

fewshot generate RUN "Once upon a time"
fewshot generate RUN --temperature 0 --stop "\\n" "2 + 2 ="
fewshot generate RUN --recipe novel_words 'A "whatpu" is a small, furry animal.'
"""

from __future__ import annotations

import argparse
import itertools
import sys

INTERMIXED = True  # the prompt may stand after options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: the prompt, how much is written, and how it is sampled."""
    parser.add_argument("model", metavar="RUN", help="a run folder, or hf:PATH for a Hugging Face GPT-2 folder")
    parser.add_argument(
        "prompt",
        nargs="?",
        default="",
        metavar="PROMPT",
        help="text to continue (default: none, a new document begins)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="put a prompt of the paper around PROMPT, or around the paper's own example if PROMPT is empty: "
        'novel_words (PROMPT defines a "word", the model uses it in a sentence), grammar (PROMPT is poor English, the '
        "model corrects it), news (PROMPT is 'title | subtitle', the model writes the article)",
    )
    parser.add_argument("--n_tokens", type=int, default=200, help="tokens to generate, at most (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top_k", type=int, help="sample only from the k most likely tokens")
    parser.add_argument(
        "--top_p", type=float, help="sample only from the smallest set of tokens with this total probability"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; can be given several times"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same text (default: %(default)s)")
    parser.add_argument(
        "--weight_type",
        default="float32",
        metavar="TYPE",
        help="float32, or bfloat16 and int8, which are faster and a little less exact (default: %(default)s)",
    )
    parser.add_argument("--n", type=int, default=1, help="number of samples (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print completions with log-probabilities as JSON, not as a stream"
    )


def run(args: argparse.Namespace) -> int:
    """Print the prompt and its completions."""
    from fewshot.base.errors import check, look_up
    from fewshot.cli.show import print_json
    from fewshot.cli.text_input import argument
    from fewshot.evaluate.tasks.qualitative import RECIPES
    from fewshot.generate.complete import complete, stream
    from fewshot.generate.sampling import Sampling

    check(min(args.n, args.n_tokens) >= 1, f"--n is {args.n} and --n_tokens {args.n_tokens}, both must be at least 1")
    sampling = Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)
    typed = argument(args.prompt, "the prompt")
    stop = [argument(text, "--stop").replace("\\n", "\n").replace("\\t", "\t") for text in args.stop]
    prompt, text = args.prompt, typed  # as it is shown, and as the model reads it
    if args.recipe is not None:
        recipe = look_up("recipe", args.recipe, RECIPES)
        prompt = text = recipe.prompt(typed)
        stop.append(recipe.stop)
    from fewshot.checkpoint.formats.table import open_model
    from fewshot.kernels.invariant.linear import WEIGHT_TYPES
    from fewshot.model.packed import PackedGPT

    look_up("weight type", args.weight_type, dict.fromkeys(WEIGHT_TYPES, True))
    model, tokenizer, _ = open_model(args.model)
    packed = PackedGPT(model, args.weight_type)
    tokens = tokenizer.encode(text) or [tokenizer.eot]
    how = {"max_tokens": args.n_tokens, "sampling": sampling, "stop": stop, "slide": True}
    if args.json:
        completions = complete(packed, tokenizer, [tokens] * args.n, seed=args.seed, **how)
        print_json(
            [
                {
                    "prompt": prompt,
                    "text": completion.text,
                    "tokens": completion.tokens,
                    "logprobs": completion.logprobs,
                    "finish_reason": completion.finish_reason,
                }
                for completion in completions
            ]
        )
        return 0
    for sample in range(args.n):
        pieces = stream(packed, tokenizer, tokens, seed=args.seed, place=sample, **how)
        first = prompt + next(pieces, "")  # the prompt is shown once the model has accepted it
        for piece in itertools.chain([first], pieces):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n" if sample == args.n - 1 else "\n\n" + "-" * 40 + "\n")
    return 0
