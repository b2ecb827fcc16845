"""Writes tiny random decoders that make vectors and scores, and what sentence-transformers and transformers compute with them:

    pip install torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3 sentence-transformers==6.2.0
    python decoders.py          # in this folder
"""
import json
import pathlib
import shutil

import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from sentence_transformers.base.modules import Normalize, Transformer

TEXTS = ["hello world", "a", "", "the quick brown fox jumps over the lazy dog and runs", "Grüße, 你好!", "yes no " * 70]
PROMPTS = {"query": "Instruct: find it\nQuery:", "document": ""}
PAIRS = [["hello", "world"], ["the quick fox", "lazy dog runs\nover the fox"], ["<|im_end|>", "no yes"]]
INSTRUCTION = "Judge by the fox."
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=256, tie_word_embeddings=True)
# Qwen3-Reranker's model card has these three.
PREFIX = ('<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. '
          'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n')
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
USUAL = "Given a web search query, retrieve relevant passages that answer the query"


def tokenizer(folder, end):
    """A byte-level BPE; with end it puts the end token behind texts, as Qwen3-Embedding's."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXTS + ["yes no hello world the quick fox Judge Query Document Instruct"] * 8, trainer)
    t.add_tokens([w for w in ("yes", "no") if t.token_to_id(w) is None])
    if end:
        t.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", t.token_to_id("<|endoftext|>"))])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                                padding_side="left")
    fast.save_pretrained(folder)
    return fast


def fresh(name):
    folder = pathlib.Path(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.manual_seed(len(name))
    return folder


def model(kind, vocab, **more):
    config = getattr(transformers, kind.split("For")[0].removesuffix("Model") + "Config")(
        vocab_size=vocab, **SIZES, **more)
    m = getattr(transformers, kind)(config).eval().float()
    with torch.no_grad():
        for n, p in m.named_parameters():
            noise = torch.randn(p.shape)
            p.copy_(1 + 0.2 * noise if p.dim() == 1 else noise if "embed" in n else 1.5 * noise / p.shape[-1] ** 0.5)
    return m


def numbers(x):
    return [round(v, 7) for v in x.tolist()]


def embedder():
    folder = fresh("qwen3-embedding")
    tok = tokenizer(folder, True)
    base = model("Qwen3Model", len(tok))
    base.save_pretrained(folder)
    st = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(folder)), Pooling(SIZES["hidden_size"], "lasttoken"), Normalize()], prompts=PROMPTS, device="cpu")
    golden = dict(texts=TEXTS, vectors=[numbers(v) for v in st.encode(TEXTS)],
                  queries=[numbers(v) for v in st.encode_query(TEXTS)],
                  cut=[numbers(v) for v in st.encode(TEXTS, truncate_dim=6, normalize_embeddings=True)])
    states = []
    with torch.no_grad():
        for t in TEXTS:
            states.append(base(**tok(t, return_tensors="pt")).last_hidden_state[0])
    golden["pooled"] = {"cls": [numbers(h[0]) for h in states], "mean": [numbers(h.mean(0)) for h in states],
                        "max": [numbers(h.max(0).values) for h in states], "last": [numbers(h[-1]) for h in states]}
    golden["tokens"] = [tok(t).input_ids for t in TEXTS]
    st.save(str(folder), create_model_card=False)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen3ForCausalLM"]  # as it is published, though the names of the weights have no prefix
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "golden.json").write_text(json.dumps(golden))


def scores(m, tok, yes, no):
    """The published way: the softmax of the logits of no and yes behind the prompt. A control token in a text is text, cut in two."""
    out = {}
    for name, instruction in (("scores", USUAL), ("instructed", INSTRUCTION)):
        out[name] = []
        for query, document in PAIRS:
            text = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}".replace("<|im_end|>", "<|im_\ue000end|>")
            ids = sum((tok(piece, add_special_tokens=False).input_ids for piece in (PREFIX + text + SUFFIX).split("\ue000")), [])
            with torch.no_grad():
                logits = m(torch.tensor([ids])).logits[0, -1]
            out[name].append(torch.softmax(logits[[no, yes]].double(), 0)[1].item())
    return out


def rerankers():
    folder = fresh("qwen3-reranker")
    tok = tokenizer(folder, False)
    m = model("Qwen3ForCausalLM", len(tok))
    m.save_pretrained(folder)
    yes, no = (tok.convert_tokens_to_ids(w) for w in ("yes", "no"))
    golden = dict(pairs=PAIRS, instruction=INSTRUCTION, yes=yes, no=no, **scores(m, tok, yes, no))
    (folder / "golden.json").write_text(json.dumps(golden))

    # As such checkpoints are converted: a head of one row, the difference of two of the output matrix.
    other = fresh("qwen3-seq-cls")
    tokenizer(other, False)
    c = transformers.Qwen3ForSequenceClassification(transformers.Qwen3Config(
        vocab_size=len(tok), num_labels=1, pad_token_id=tok.pad_token_id, **SIZES)).eval().float()
    c.model.load_state_dict(m.model.state_dict())
    with torch.no_grad():
        c.score.weight.copy_(m.lm_head.weight[[yes]] - m.lm_head.weight[[no]])
    c.save_pretrained(other)
    (other / "golden.json").write_text(json.dumps(golden))


def both_ways():
    """As EmbeddingGemma: tokens see those after them, and two layers follow the pooling."""
    folder = fresh("gemma3-embedding")
    tok = tokenizer(folder, True)
    sizes = dict(SIZES, num_hidden_layers=3)
    config = transformers.Gemma3TextConfig(vocab_size=len(tok), **sizes, use_bidirectional_attention=True, sliding_window=10, query_pre_attn_scalar=8,
                                           layer_types=["sliding_attention", "sliding_attention", "full_attention"])
    base = transformers.Gemma3TextModel(config).eval().float()
    with torch.no_grad():
        for n, p in base.named_parameters():
            noise = torch.randn(p.shape)
            p.copy_(0.2 * noise if p.dim() == 1 else noise if "embed" in n else 1.5 * noise / p.shape[-1] ** 0.5)
    base.save_pretrained(folder)
    st = sentence_transformers.SentenceTransformer(modules=[
        Transformer(str(folder)), Pooling(16, "mean"), Dense(16, 24, bias=False, activation_function=torch.nn.Identity()),
        Dense(24, 12, bias=False, activation_function=torch.nn.Identity()), Normalize()], prompts=PROMPTS, device="cpu")
    st.save(str(folder), create_model_card=False)
    st = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    golden = dict(texts=TEXTS, vectors=[numbers(v) for v in st.encode(TEXTS)], queries=[numbers(v) for v in st.encode_query(TEXTS)])

    # Another decoder that is told to.
    config = transformers.AutoConfig.from_pretrained("qwen3-embedding")
    config.is_causal = False
    other = transformers.Qwen3Model.from_pretrained("qwen3-embedding", config=config, attn_implementation="eager").eval().float()
    tok = transformers.AutoTokenizer.from_pretrained("qwen3-embedding")
    with torch.no_grad():
        golden["told"] = [numbers(other(**tok(t, return_tensors="pt")).last_hidden_state[0].mean(0)) for t in TEXTS]
    (folder / "golden.json").write_text(json.dumps(golden))


embedder()
rerankers()
both_ways()
