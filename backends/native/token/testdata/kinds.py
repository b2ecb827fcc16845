"""Makes a tiny tokenizer of each kind of file and writes down what transformers does with it.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3 \
        sentencepiece==0.2.3 tiktoken==0.14.0 protobuf==7.36.2
    /tmp/venv/bin/python kinds.py

Writes kinds/NAME/: the tokenizer's files, trained on the repository's LICENSE and the texts below, and cases.json:
"encode" [text, ids, ids with special tokens], "decode" [ids, text, text without special tokens], "tokens" the named
tokens with their ids, "size" one more than the largest id.
"""

import base64
import io
import json
import pathlib
import random
import shutil
import unicodedata

import sentencepiece
import tiktoken
import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent / "kinds"
LICENSE = (pathlib.Path(__file__).parents[4] / "LICENSE").read_text()

TEXTS = [
    "",
    " ",
    "Hello, World!",
    "  two  spaces   here  ",
    "Grüße aus Zürich: café, naïve, ÅNGSTRÖM.",
    "日本語と中文 and English",
    "emoji 👍🏽 👨‍👩‍👧 done",
    "tabs\tand\r\nline\n\nfeeds \n",
    "<s>control</s> <|im_start|>user<|im_end|> [CLS] <unk>",
    "a <mask> b<mask>c <extra_id_0> x",
    "don't I'm we've it's they're CAN'T do not .",
    "12345 67 8.90 1,000",
    "▁under▁scores ▁",
    "ﬁﬂ ½ Ⅳ ｆｕｌｌ ＷＩＤＴＨ ①",
    "é e\u0301 \u200b zero\u00a0nbsp\u3000wide",
    "!!! ??? ... ,,, ' ' '",
    "\x00nul\x01ctl\x7f",
    "x" * 70,
    "<0x41> <0x0A> ##ing",
    "def f(x):\n    return x + 1\n",
    "Привет, мир! שלום مرحبا สวัสดี",
]
CORPUS = [line for line in LICENSE.splitlines() + TEXTS * 3 if line.strip() and "\x00" not in line]
LETTERS = list("aeiou rstln ABC .,'!?\n\t<>|_▁") + ["é", "ü", "日", "本", "👍", "the", "and", "License", " of", "<s>", "</s>", "\u0301", "ﬁ", "　"]


def texts(rng, extra):
    return TEXTS + extra + ["".join(rng.choice(LETTERS + extra) for _ in range(rng.randrange(1, 40))) for _ in range(40)]


def sentencepiece_model(path, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, hard_vocab_limit=False, minloglevel=2, **options
    )
    path.write_bytes(out.getvalue())


def normalization(path):
    """A few of NFKC's rules, since the whole of them weighs 240 kB."""
    rules = {c: unicodedata.normalize("NFKC", c) for c in "ﬁﬂ½Ⅳ①\u00a0\u3000" + "".join(chr(c) for c in range(0xFF21, 0xFF5B))}
    lines = [f"{ord(a):X}\t{' '.join(f'{ord(x):X}' for x in b)}" for a, b in sorted(rules.items())]
    lines += ["65 301\tE9", "200B\t", "9\t20", "A\t20", "D\t20"]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def folder(name, config, model_type, **files):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    if model_type:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}) + "\n")
    for file, data in files.items():
        (path / file).write_text(data)
    return path


def write(path, encode, decode, size, tokens, extra=(), seed=0):
    rng = random.Random(seed)
    cases = {"size": size, "tokens": tokens, "encode": [], "decode": []}
    for text in texts(rng, list(extra)):
        cases["encode"].append([text, encode(text, False), encode(text, True)])
    for _ in range(60):
        ids = [rng.randrange(rng.choice([size, min(size, 300)])) for _ in range(rng.randrange(0, 24))]
        cases["decode"].append([ids, decode(ids, False), decode(ids, True)])
    for text in TEXTS:
        ids = encode(text, True)
        cases["decode"].append([ids, decode(ids, False), decode(ids, True)])
    (path / "cases.json").write_text(json.dumps(cases, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{path.name}: {size} ids, {sum(f.stat().st_size for f in path.iterdir())} bytes")


def record(path, extra=(), **options):
    tok = transformers.AutoTokenizer.from_pretrained(path, **options)
    named = {k: [v, tok.convert_tokens_to_ids(v)] for k in tok.SPECIAL_TOKENS_ATTRIBUTES if isinstance(v := getattr(tok, k, None), str)}
    named = {k: v for k, v in named.items() if tok.get_vocab().get(v[0]) is not None}
    write(
        path,
        lambda text, special: tok.encode(text, add_special_tokens=special),
        lambda ids, skip: tok.decode(ids, skip_special_tokens=skip),
        max(tok.get_vocab().values()) + 1,
        named,
        extra,
    )


def added(content, special=True, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special, **more}


SPM_BPE = dict(model_type="bpe", vocab_size=420, byte_fallback=True, character_coverage=0.98, split_digits=True)


def llama():
    for name, more in {"llama": {"legacy": False, "add_bos_token": True}, "llama-legacy": {"legacy": True, "add_bos_token": True, "add_eos_token": True}}.items():
        path = folder(name, {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "added_tokens_decoder": {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>")}, "pad_token": None,
            "clean_up_tokenization_spaces": False, **more}, "llama")
        sentencepiece_model(path / "tokenizer.model", normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, **SPM_BPE)
        record(path)


def mistral():
    path = folder("mistral", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": {"__type": "AddedToken", **added("<s>")}, "eos_token": "</s>", "unk_token": "<unk>"}, "mistral")
    sentencepiece_model(path / "tokenizer.model", normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        user_defined_symbols="[INST],[/INST]", **SPM_BPE)
    record(path, ["[INST]", "[/INST]"])


def generic():
    """A class that transformers does not know: the file's own settings count."""
    path = folder("generic-bpe", {"tokenizer_class": "OddTokenizer"}, "mistral")
    rules = normalization(path / "rules.tsv")
    sentencepiece_model(path / "tokenizer.model", normalization_rule_tsv=rules, model_type="bpe", vocab_size=400)
    (path / "rules.tsv").unlink()
    record(path)
    path = folder("generic-unigram", {"tokenizer_class": "OddTokenizer", "add_eos_token": True}, "granite")
    rules = normalization(path / "rules.tsv")
    sentencepiece_model(path / "tokenizer.model", normalization_rule_tsv=rules, model_type="unigram", vocab_size=400, byte_fallback=True,
        user_defined_symbols="<|im_start|>,<|im_end|>", control_symbols="<pad>,<mask>")
    (path / "rules.tsv").unlink()
    record(path, ["<|im_start|>", "<|im_end|>", "<pad>"])


def gemma():
    path = folder("gemma", {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}, "gemma2")
    sentencepiece_model(path / "tokenizer.model", normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>", user_defined_symbols="<mask>,<start_of_turn>,<end_of_turn>", **SPM_BPE)
    record(path, ["<start_of_turn>", "<end_of_turn>"])


def xlm_roberta():
    path = folder("xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": {"__type": "AddedToken", **added("<mask>", lstrip=True)}, "clean_up_tokenization_spaces": True}, "xlm-roberta")
    rules = normalization(path / "rules.tsv")
    sentencepiece_model(path / "sentencepiece.bpe.model", normalization_rule_tsv=rules, model_type="unigram", vocab_size=400)
    (path / "rules.tsv").unlink()
    record(path)


def t5():
    path = folder("t5", {"tokenizer_class": "T5Tokenizer", "extra_ids": 10}, "t5")
    rules = normalization(path / "rules.tsv")
    sentencepiece_model(path / "spiece.model", normalization_rule_tsv=rules, model_type="unigram", vocab_size=400, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (path / "rules.tsv").unlink()
    record(path)


def bert():
    for name, lower in {"bert": True, "bert-cased": False}.items():
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower} if not lower else None
        path = folder(name, config, "bert")
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.normalizer = normalizers.BertNormalizer(lowercase=lower)
        tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tok.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=400, limit_alphabet=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
        vocab = tok.get_vocab()
        (path / "vocab.txt").write_text("".join(t + "\n" for t in sorted(vocab, key=vocab.get)))
        record(path, ["[MASK]", "[SEP]"])


def byte_level():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def files(path, tok, specials=()):
    model = json.loads(tok.to_str())["model"]
    vocab = dict(model["vocab"])
    for s in specials:
        vocab.setdefault(s, len(vocab))
    (path / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (path / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]))


def gpt2():
    tok = byte_level()
    path = folder("gpt2", None, "gpt2")
    files(path, tok)
    record(path, ["<|endoftext|>"])
    path = folder("qwen2", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None,
        "added_tokens_decoder": {"420": added("<|im_start|>"), "421": added("<|im_end|>"), "422": added("<think>", special=False)},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, "qwen2")
    files(path, tok)
    record(path, ["<|endoftext|>", "<|im_start|>", "<think>"])
    path = folder("roberta", None, "roberta", **{
        "special_tokens_map.json": json.dumps({"mask_token": {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}}),
        "added_tokens.json": json.dumps({"<new>": 425, "<newer>": 426}),
    })
    files(path, tok, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    record(path, ["<new>", "<newer>"])
    # A tokenizer.json whose configuration adds tokens, one of them special there but not here.
    tok.add_tokens([AddedToken("<plain>", normalized=False), AddedToken("<late>", normalized=False)])
    path = folder("json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_bos_token": True,
        "added_tokens_decoder": {"420": added("<plain>"), "421": added("<late>", special=False), "422": added("<extra>"), "423": added("Word", special=False, normalized=True, single_word=True)}}, None)
    (path / "tokenizer.json").write_text(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")))
    record(path, ["<plain>", "<late>", "<extra>", "Word", "Words"])


def ranks():
    """The byte strings of a tiktoken vocabulary in order."""
    letters = {c: b for b, c in transformers.convert_slow_tokenizer.bytes_to_unicode().items()}
    vocab = json.loads(byte_level().to_str())["model"]["vocab"]
    del vocab["<|endoftext|>"]
    return [bytes(letters[c] for c in t) for t in sorted(vocab, key=vocab.get)]


def tiktoken_file(path):
    path.write_text("".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(ranks())))


def llama3():
    n = len(ranks())
    path = folder("llama3", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "add_bos_token": True,
        "added_tokens_decoder": {str(n): added("<|begin_of_text|>"), str(n + 1): added("<|end_of_text|>"), str(n + 4): added("<|eot_id|>")}}, "llama")
    tiktoken_file(path / "tokenizer.model")
    record(path, ["<|begin_of_text|>", "<|eot_id|>"])


def qwen():
    """Qwen 1: its code is the checkpoint's own, over tiktoken and NFC."""
    path = folder("qwen", {"tokenizer_class": "QWenTokenizer"}, "qwen")
    tiktoken_file(path / "qwen.tiktoken")
    table = {t: i for i, t in enumerate(ranks())}
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
    special = {s: len(table) + i for i, s in enumerate(specials)}
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tok = tiktoken.Encoding("qwen", pat_str=pattern, mergeable_ranks=table, special_tokens=special)
    encode = lambda text, _: tok.encode(unicodedata.normalize("NFC", text), allowed_special="all", disallowed_special=())
    decode = lambda ids, skip: tok.decode([i for i in ids if not skip or i < len(table)], errors="replace")
    write(path, encode, decode, len(table) + len(special), {"eos_token": ["<|endoftext|>", special["<|endoftext|>"]]}, ["<|im_start|>", "<|im_end|>", "<|extra_3|>"])


def tekken():
    path = folder("tekken", None, "mistral")
    pattern = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    table = ranks()
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "<pad>"]
    (path / "tekken.json").write_text(json.dumps({
        "config": {"pattern": pattern, "num_vocab_tokens": len(table), "default_vocab_size": len(table) + 20 - 9, "default_num_special_tokens": 20, "version": "v3"},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": t.decode(errors="ignore") or None} for i, t in enumerate(table)],
        "special_tokens": [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(specials)],
    }))
    tok = transformers.integrations.mistral.tokenizer.convert_tekken_tokenizer(str(path / "tekken.json"))
    write(path, lambda text, special: tok.encode(text, add_special_tokens=special), lambda ids, skip: tok.decode(ids, skip_special_tokens=skip),
        max(tok.get_vocab().values()) + 1, {"bos_token": ["<s>", 1], "eos_token": ["</s>", 2], "unk_token": ["<unk>", 0]}, ["[INST]", "[TOOL_CALLS]", "<SPECIAL_12>"])


assert transformers.__version__ == "5.24.0" and tokenizers.__version__ == "0.23.3", (transformers.__version__, tokenizers.__version__)
for make in [llama, mistral, generic, gemma, xlm_roberta, t5, bert, gpt2, llama3, qwen, tekken]:
    make()
