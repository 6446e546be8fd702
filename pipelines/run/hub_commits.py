"""Which commit of the hub's repositories a run reads: the one in its lock, else the one that the hub names now, else
the one that the hub's cache knows.

So a run that is repeated reads what it read before, whatever has been uploaded since. Taking an entry, or the whole
`workflow.lock`, away asks again.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from gemma_keras.checkpoints.hub import COMMIT, refusal, silence
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.files import read_json
from pipelines.host.paths import adapter_refusal
from pipelines.run.hub_names import HubName

SECONDS_TO_WAIT = 10.0
"""For the hub to answer."""


@dataclasses.dataclass(frozen=True)
class HubCommit:
    """What a name on the hub stands for in a run.

    Args:
        name: on the hub. commit: 40 hexadecimal digits; None where it cannot be pinned, or is not known.
        problem: why it is not known; None where it is, or where it cannot be pinned.
        source: who named it; None for the workflow.
    """

    name: HubName
    commit: str | None = None
    problem: str | None = None
    source: Literal["lock", "hub", "cache"] | None = None

    def record(self) -> dict[str, Any]:
        """As in `workflow.lock`."""
        name = self.name
        if name.unpinned is not None:
            return {"kind": name.kind, "commit": None, "not_pinned": name.unpinned}
        return {
            "kind": name.kind,
            "repository": name.repository,
            "revision": name.revision or "main",
            "commit": self.commit,
        }


class HubCommits:
    """The commits of one run. Each name is looked up once; nothing is read or asked before the first.

    Args:
        lock: the `workflow.lock` whose commits stand; it need not exist.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._found: dict[HubName, HubCommit] = {}
        self._is_silent = False

    def of(self, name: HubName) -> HubCommit:
        """The commit of a name; one without where it cannot be known.

        Raises:
            ConfigError: the lock cannot be read.
        """
        if name not in self._found:
            self._found[name] = self._look_up(name)
        return self._found[name]

    def _look_up(self, name: HubName) -> HubCommit:
        if name.unpinned is not None:
            return HubCommit(name)
        is_commit = COMMIT.fullmatch(name.revision or "") is not None
        locked = self._locked.get(name.written)
        commit = str(locked.get("commit")) if isinstance(locked, dict) else ""
        if COMMIT.fullmatch(commit) and not (is_commit and commit != name.revision):
            found = HubCommit(name, commit, source="lock")
            if found.record() == locked:
                return found
        return HubCommit(name, name.revision) if is_commit else self._asked(name)

    @functools.cached_property
    def _locked(self) -> Mapping[str, Any]:
        if not self._lock.exists():
            return {}
        try:
            found = read_json(self._lock)["hub"]
        except (DataError, TypeError) as error:
            raise ConfigError(
                f"{self._lock}: is no lock of a run, and would say which commits of the hub it read ({error}). Put it "
                "back, or remove it to read the newest ones"
            ) from error
        except KeyError:  # of a version that did not write them
            return {}
        return found if isinstance(found, dict) else {}

    def _asked(self, name: HubName) -> HubCommit:
        # Here: it takes a third of a second, which a workflow of local files need not wait.
        import huggingface_hub
        from huggingface_hub import errors

        revision = name.revision or "main"
        problem = silence(name.wanted, revision)
        if not self._is_silent:
            try:
                about = huggingface_hub.HfApi().repo_info(
                    name.repository, revision=revision, repo_type=name.repo_type, timeout=SECONDS_TO_WAIT
                )
                if about.sha is not None:
                    return HubCommit(name, about.sha, source="hub")
            except (errors.RevisionNotFoundError, errors.HFValidationError) as error:
                return HubCommit(name, problem=name.said(refusal(error, name.place, revision)))
            except errors.HfHubHTTPError as error:
                problem = refusal(error, name.place, revision)
            except Exception:  # of the HTTP library, whose name depends on the version
                self._is_silent = True
        try:
            # Nothing is wanted but the name of the folder that the revision leads to.
            found = huggingface_hub.snapshot_download(
                name.repository, revision=revision, repo_type=name.repo_type, allow_patterns=[], local_files_only=True
            )
        except (errors.HFValidationError, OSError):
            return HubCommit(name, problem=name.said(problem))
        return HubCommit(name, Path(found).name, source="cache")


def need(commits: Iterable[HubCommit]) -> None:
    """Make sure that all that a run is about to read can be had, and is what it may start from.

    In the hub's cache the revision then leads to its commit, so that another run finds it without a network.

    Raises:
        DataError: a commit is not known, or the hub wants a licence to be accepted. ConfigError: a model is an adapter.
    """
    for one in dict.fromkeys(commits):
        if one.problem is not None:
            raise DataError(one.problem)
        if one.commit is not None and one.source != "lock":
            _meet(one)


def _meet(one: HubCommit) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    name = one.name
    # Of an adapter the base model would be another name, in a file of the hub's, which nothing pins.
    file = "README.md" if name.kind == "data" else "adapter_config.json"
    try:
        huggingface_hub.hf_hub_download(
            name.repository,
            file,
            revision=name.revision,
            repo_type=name.repo_type,
            etag_timeout=SECONDS_TO_WAIT,
            local_files_only=one.source == "cache",
        )
    except errors.GatedRepoError as error:
        raise DataError(name.said(refusal(error, name.place, name.revision or "main"))) from error
    except Exception:  # the file is not there, as hoped, or the hub is silent: the stage that reads will say so
        return
    if name.kind == "model":
        raise ConfigError(adapter_refusal(name.written))
