"""Tensors copied into a checkpoint on its way, and what they leave for manifest and certificate."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_jax.checkpoint.layers import Layered
    from llama_jax.checkpoint.manifest import FileEntry
    from llama_jax.convert.hugging_face_import import Import
    from llama_jax.convert.result_folder import Unfinished


class Copier:
    """Copies tensors of others into files of a checkpoint's arrays.

    Args:
        unfinished: The run's folder.
        step: Of the checkpoint in it.
        on_bytes: Called with the bytes copied so far.

    Attributes:
        files: Entries for the checkpoint's manifest.
        digests: Bytes and SHA-256 of the files, for the run's certificate.
    """

    def __init__(self, unfinished: "Unfinished", step: int, on_bytes: Callable[[int], object]):
        self.files: dict[str, FileEntry] = {}
        self.digests: dict[str, dict[str, Any]] = {}
        self._unfinished, self._step, self._on_bytes = unfinished, step, on_bytes
        self._num_bytes = 0

    def copy(
        self, plan: "Import", arrays: "dict[str, Layered]", certified: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Copies all tensors of a plan.

        Args:
            plan: Where they lie.
            arrays: That they become, by path of the parameter.
            certified: What a certificate beside them says of tensors, by name.

        Returns:
            What a certificate says of them now.

        Raises:
            ValueError: If a tensor is damaged, or not what the certificate says.
        """
        from llama_jax.checkpoint.manifest import FileEntry
        from llama_jax.convert.certificate import tensor_entry
        from llama_jax.convert.hugging_face_import import copy_tensors

        def name_of(tensor: Any) -> str:
            return arrays[tensor.pair.ours].file(max(tensor.layer, 0))

        saving = f"checkpoints/{self._step}.saving"
        entries: dict[str, dict[str, Any]] = {}
        for tensor, stored, written in copy_tensors(
            plan, self._unfinished, lambda tensor: f"{saving}/{name_of(tensor)}"
        ):
            entry = tensor_entry(stored.dtype, stored.shape, written.tensor_crc32)
            if (said := certified.get(tensor.name)) and said != entry:
                raise ValueError(
                    f"{stored.path}: {tensor.name} is not what the certificate beside it says; the "
                    "file changed since: copy or download it again."
                )
            name = name_of(tensor)
            self.files[name] = FileEntry(size=written.num_bytes, crc32=written.crc32)
            self.digests[f"checkpoints/{self._step}/{name}"] = {
                "bytes": written.num_bytes,
                "sha256": written.sha256,
            }
            entries[tensor.name] = entry
            self._num_bytes += stored.num_bytes
            self._on_bytes(self._num_bytes)
        return entries
