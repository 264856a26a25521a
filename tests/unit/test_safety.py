"""Nothing that comes from elsewhere is run: what the code must not call."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [
    *sorted((ROOT / "src").rglob("*.py")),
    *sorted((ROOT / "workflow").rglob("*.smk")),
    ROOT / "Snakefile",
]
FORBIDDEN = {
    "pickles": r"\b(?:import|from) (?:pickle|dill|cloudpickle|joblib|shelve|marshal)\b",
    "pickled arrays": r"allow_pickle|\b(?:np|numpy)\.load\(",
    "code of a repository": r"trust_remote_code['\"]?\s*[=:]",
    "unsafe YAML": r"yaml\.(?:load|full_load|unsafe_load|load_all)\(",
    "evaluated text": r"(?<![\w.])(?:eval|exec)\(|\bcompile\(.*['\"]exec['\"]",
    "a shell": r"shell\s*=\s*True|os\.(?:system|popen|exec|spawn)|getoutput\(",
    "archives unpacked by their own account": r"\.extractall\(|unpack_archive\(",
    "downloads by the way": r"torch\.hub|_from_url|urlretrieve|urlopen\(",
    "unverified connections": r"verify\s*=\s*False",
    "unchecked weights": r"weights_only\s*=\s*False",
}
READERS = {
    r"\bsafe_load\(|\bSafeLoader\b": "src/clockwork_experiments/base/texts.py",
    r"\b(?:Image|pillow)\.open\(|exif_transpose": (
        "src/clockwork_experiments/data/pictures.py"
    ),
}
"""What is read in one place alone, where all that can be wrong with it is known."""
SCRIPTS = {"src/clockwork_experiments/models/encoders.py": 1}
"""Where TorchScript is loaded, and how often; each by a checksum in the code."""
NETWORK = {
    "requests": {"src/clockwork_experiments/data/downloads.py"},
    "huggingface_hub": {
        "src/clockwork_experiments/data/sources.py",
        # An adaptor that a user asks for by its id.
        "src/clockwork_diffusion/adaptors.py",
    },
}
"""Who may ask other machines."""


def code_of(path: Path) -> str:
    """Return a file without comments."""
    return re.sub(r"(?m)(?:^|\s)#.*$", "", path.read_text("utf-8"))


def found(pattern: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in CODE
        for match in re.finditer(pattern, code_of(path))
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_code_has_none_of(what):
    assert not found(FORBIDDEN[what])


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("pickles", "import pickle"),
        ("pickled arrays", "x = np.load(path)"),
        ("code of a repository", "load(x, trust_remote_code=True)"),
        ("unsafe YAML", "yaml.load(file)"),
        ("evaluated text", "x = eval(text)"),
        ("a shell", "subprocess.run(x, shell=True)"),
        ("archives unpacked by their own account", "file.extractall(folder)"),
        ("downloads by the way", "torch.hub.load(x)"),
        ("unverified connections", "requests.get(x, verify=False)"),
        ("unchecked weights", "torch.load(x, weights_only=False)"),
    ],
)
def test_it_would_be_found(what, line):
    assert re.search(FORBIDDEN[what], line)


@pytest.mark.parametrize("pattern", READERS)
def test_there_is_one_reader_of_each(pattern):
    assert {line.split(":")[0] for line in found(pattern)} == {READERS[pattern]}


def calls(text: str, name: str) -> list[str]:
    """Return the arguments of each call of a function."""
    given = []
    for match in re.finditer(rf"{re.escape(name)}\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        given.append(text[match.end() : end - 1])
    return given


def test_every_torch_load_is_of_weights_only():
    seen = 0
    for path in CODE:
        for given in calls(code_of(path), "torch.load"):
            assert "weights_only=True" in given, path
            seen += 1
    assert seen >= 4


def test_torchscript_is_loaded_where_its_checksum_is_known():
    for path in CODE:
        name = path.relative_to(ROOT).as_posix()
        assert len(calls(code_of(path), "torch.jit.load")) == SCRIPTS.get(name, 0), name


def test_every_pretrained_model_of_the_experiments_is_a_local_one():
    seen = 0
    for path in CODE:
        if "src/clockwork_diffusion" in path.as_posix():
            continue  # a user's library: what a user names is fetched as diffusers does
        if path.name == "hub.py":
            continue  # it writes what a user runs
        for given in calls(code_of(path), ".from_pretrained"):
            assert "local_files_only=True" in given, f"{path}: {given}"
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("library", NETWORK)
def test_one_module_asks_other_machines(library):
    pattern = rf"(?m)^\s*(?:import|from) {library}\b"
    assert {line.split(":")[0] for line in found(pattern)} == NETWORK[library]


def test_nothing_of_a_manifest_is_written_into_a_command():
    """What the workflow reads of files that were fetched is compared, not passed on."""
    reader = "src/clockwork_experiments/config/needs/fetching.py"
    text = code_of(ROOT / reader)
    uses = re.findall(r"read_manifest\(.*", text)
    assert len(uses) == 3  # its definition, the check, and whether it was made
    for path in CODE:
        if path != ROOT / reader:
            assert "read_manifest(" not in code_of(path), path
