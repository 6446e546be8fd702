"""How the weights lie on a mesh of devices: one table.

Source: the layout of arXiv:2403.08295, section 3, as KerasHub spells it for its kernels with three axes: heads and
feed-forward width over the model's axis, the model's width over the data's.
"""

import keras

# Path of a variable (a regular expression, of the whole path) → the mesh's axis along each of its dimensions.
_LAYOUT = {
    "(.*/)?token_embedding/embeddings": ("model", "data"),
    ".*(q_proj|k_proj|v_proj|gate_proj|up_proj)/kernel": ("data", "model"),
    ".*(o_proj|down_proj)/kernel": ("model", "data"),
    # An adapter's narrow side lies whole on every device.
    ".*(q_proj|k_proj|v_proj|gate_proj|up_proj)/lora_b_.*": (None, "model"),
    ".*(o_proj|down_proj)/lora_a_.*": ("model", None),
}


def layout_map(device_mesh, model_axis: str = "model", data_axis: str = "batch"):
    """A `keras.distribution.LayoutMap` for `keras.distribution.ModelParallel`; norms are on every device.

    Heads are split where the size of an axis divides the width of all of them.

    Args:
        device_mesh: `keras.distribution.DeviceMesh`.
        model_axis, data_axis: names of its axes.

    Raises:
        ValueError: no mesh, or one without such an axis.
    """
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise ValueError(f"`device_mesh` must be a keras.distribution.DeviceMesh. Received: {type(device_mesh)}")
    for axis in (model_axis, data_axis):
        if axis not in device_mesh.axis_names:
            raise ValueError(f"The mesh has no axis {axis!r}. Its axes: {', '.join(device_mesh.axis_names)}")
    names = {"model": model_axis, "data": data_axis, None: None}
    layout = keras.distribution.LayoutMap(device_mesh)
    for path, axes in _LAYOUT.items():
        layout[path] = tuple(names[axis] for axis in axes)
    return layout
