"""Writes tiny random encoders and what transformers computes with them in float32:

    pip install torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3
    python golden.py          # in this folder
"""
import json
import pathlib
import shutil

import tokenizers
import torch
import transformers

TEXTS = ["hello world", "a", "the quick brown fox jumps over the lazy dog and runs", "Grüße, hello!", "world hello world"]
PAIRS = [["hello", "world"], ["the quick fox", "lazy dog runs over the fox"]]
WORDS = "a the hello world quick brown fox jumps over lazy dog and runs , ! gru ##ße ##s".split()
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40)


def tokenizer(folder, roberta):
    names = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocab = {w: i for i, w in enumerate(names + WORDS)}
    cls, sep, unk = (("<s>", "</s>", "<unk>") if roberta else ("[CLS]", "[SEP]", "[UNK]"))
    t = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token=unk))
    t.normalizer = tokenizers.normalizers.BertNormalizer()
    t.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    t.add_special_tokens(names)
    if roberta:
        t.post_processor = tokenizers.processors.RobertaProcessing((sep, vocab[sep]), (cls, vocab[cls]))
    else:
        t.post_processor = tokenizers.processors.BertProcessing((sep, vocab[sep]), (cls, vocab[cls]))
    t.decoder = tokenizers.decoders.WordPiece()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=t, cls_token=cls, sep_token=sep, unk_token=unk,
                                                pad_token=names[1] if roberta else names[0])
    fast.save_pretrained(folder)
    return fast, len(vocab)


def case(name, model, roberta, sizes=SIZES, **more):
    folder = pathlib.Path(name)
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(len(name))
    tok, size = tokenizer(folder, roberta)
    config = getattr(transformers, model.split("For")[0].removesuffix("Model") + "Config")(
        vocab_size=size, **sizes, **(dict(type_vocab_size=1, pad_token_id=1) if roberta else {}), **more)
    m = getattr(transformers, model)(config).eval().float()
    with torch.no_grad():
        for n, p in m.named_parameters():
            noise = torch.randn(p.shape)
            p.copy_(noise / p.shape[-1] ** 0.5 if p.dim() > 1 and "embeddings" not in n else
                    1 + 0.2 * noise if p.dim() == 1 and n.endswith("orm.weight") else 0.5 * noise)
    m.save_pretrained(folder)
    types = getattr(config, "type_vocab_size", 1) > 1
    out = {}
    with torch.no_grad():
        if "Sequence" in model:
            out["pairs"] = PAIRS
            out["logits"] = [m(**encode(tok, *p, types)).logits[0].tolist()[0] for p in PAIRS]
        else:
            out["texts"] = TEXTS
            hidden = [m(**encode(tok, t, None, types)).last_hidden_state[0] for t in TEXTS]
            out["pooled"] = {"cls": [h[0].tolist() for h in hidden], "mean": [h.mean(0).tolist() for h in hidden],
                             "max": [h.max(0).values.tolist() for h in hidden], "last": [h[-1].tolist() for h in hidden]}
    (folder / "golden.json").write_text(json.dumps(out))


def encode(tok, a, b, types):
    e = tok._tokenizer.encode(a, b) if b else tok._tokenizer.encode(a)
    out = dict(input_ids=torch.tensor([e.ids]))
    if types:
        out["token_type_ids"] = torch.tensor([e.type_ids])
    return out


case("bert", "BertModel", False, layer_norm_eps=1e-12)
case("bert-score", "BertForSequenceClassification", False, num_labels=1)
case("roberta", "RobertaModel", True, hidden_act="gelu_new")
case("xlm-roberta", "XLMRobertaModel", True)
case("xlm-roberta-score", "XLMRobertaForSequenceClassification", True, num_labels=1)
case("mpnet", "MPNetModel", True)
case("mpnet-score", "MPNetForSequenceClassification", True, num_labels=1)
DISTIL = dict(dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=40)
case("distilbert", "DistilBertModel", False, DISTIL)
case("distilbert-score", "DistilBertForSequenceClassification", False, DISTIL, num_labels=1)
MODERN = dict(SIZES, num_hidden_layers=4, local_attention=8, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
case("modernbert", "ModernBertModel", False, MODERN)
case("modernbert-score", "ModernBertForSequenceClassification", False, MODERN, num_labels=1, classifier_pooling="mean")
