"""The page that lies in a bundle, for whoever finds it on a stick."""

from __future__ import annotations

from tl_flows.offline.contents import FEATURES, MANIFEST, Contents


def readme(contents: Contents) -> str:
    """What the bundle holds and the commands that make a project of it again."""
    packages = "".join(f"    {dist}=={version}\n" for dist, version in sorted(contents.packages.items()))
    folder = contents.name if contents.project == "." else f"{contents.name}/{contents.project}"
    models = ", ".join(contents.versions) or "no version of the model"
    extras = "features" if FEATURES in contents.files else "no features: they are computed again"
    predict = "tl predict champion FILE\n    " if contents.champion else ""
    return f"""# {contents.name}, for a machine without network

The repository at commit {contents.commit[:12]} with its tags, the data, {models}, the backbones' weights and
tokenizers; {extras}. {MANIFEST} holds size and sha256 of each file. A project
holds commands that `tl run` executes: use a bundle only if it comes from someone you trust.

    tl restore-offline BUNDLE {contents.name}     # BUNDLE: this folder, or the tar
    cd {folder}
    export HF_HUB_OFFLINE=1
    {predict}tl run
    tl retrain

Python packages are not in it. It was made with those below; `pip download -d wheels -r FILE` collects them and all that
they need where there is a network, `pip install --no-index --find-links wheels -r FILE` installs them here.

{packages}"""
