"""What the hubs' own libraries make of a hub and of a cache: hub/python_test.go runs it, a JSON object on standard input says what to do."""
import importlib
import json
import os
import sys


def pull(id, revision, **kwargs):
    from huggingface_hub import snapshot_download

    return snapshot_download(id, revision=revision, **kwargs)


def load(id, file):
    """The path of a file, as transformers looks for it."""
    from huggingface_hub import hf_hub_download

    return hf_hub_download(id, file)


def scan():
    """What the library finds in its cache, and what it does not like there."""
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir()
    return {
        "warnings": [str(w) for w in cache.warnings],
        "revisions": [
            {"id": repo.repo_id, "commit": r.commit_hash, "refs": sorted(r.refs), "files": sorted(f.file_name for f in r.files)}
            for repo in cache.repos
            for r in repo.revisions
        ],
    }


def environments(list):
    """What each environment means."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    out = []
    for env in list:
        os.environ.clear()
        os.environ.update(env)
        importlib.reload(constants)
        out.append(
            {"endpoint": constants.ENDPOINT, "cache": constants.HF_HUB_CACHE, "token": build_hf_headers().get("authorization", "").removeprefix("Bearer "), "offline": constants.HF_HUB_OFFLINE}
        )
    return out


def modelscope(id, revision, cache):
    from modelscope_hub.api import HubApi

    return str(HubApi().download_repo(id, repo_type="model", revision=revision, cache_dir=cache))


what = json.load(sys.stdin)
try:
    answer = {"answer": globals()[what.pop("do")](**what)}
except Exception as e:
    answer = {"error": type(e).__name__, "message": str(e)}
json.dump(answer, sys.stdout)
