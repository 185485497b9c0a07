"""Which OpenGL back end MuJoCo draws with. dm_control reads MUJOCO_GL once, when it is first imported."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

EGL_PLATFORM_DEVICE_EXT = 0x313F


def choose_rendering_backend() -> str:
    """Set MUJOCO_GL, if it is unset, to a back end that needs no screen.

    The choice lands in os.environ, so that child processes inherit it; a value that the user set is left alone. Call
    before anything imports dm_control, as ray.rllib does.

    Returns:
        The back end. Where it is chosen here, on Linux: "egl" if a device can be initialised (Debian: libegl1,
        libegl-mesa0, libgl1-mesa-dri and libopengl0, or a GPU's driver), else "osmesa" (Debian: libosmesa6), else
        "off": everything but rendering works. Elsewhere "glfw", the only one there is.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if "dm_control._render" in sys.modules:  # too late to choose: tell what dm_control took
        return getattr(sys.modules["dm_control._render"], "BACKEND", None) or "off"
    if not sys.platform.startswith("linux"):
        backend = "glfw"
    elif _egl_works():
        backend = "egl"
    elif _osmesa_works():
        backend = "osmesa"
    else:
        backend = "off"
    os.environ["MUJOCO_GL"] = backend
    return backend


def _egl_works() -> bool:
    """Whether a headless EGL display opens: the steps that dm_control takes at import, where a failure is fatal.

    Plain ctypes, because PyOpenGL binds itself to one platform for the life of the process.
    """
    if os.environ.get("PYOPENGL_PLATFORM", "egl") != "egl":
        return False
    pointer = ctypes.c_void_p
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = pointer
        egl.eglInitialize.argtypes = [pointer, pointer, pointer]
        egl.eglTerminate.argtypes = [pointer]
        query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        display_of = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    except (OSError, AttributeError):
        return False
    if not query or not display_of:
        return False
    query_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(pointer), ctypes.POINTER(ctypes.c_int)
    )(query)
    platform_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(display_of)
    devices, count = (pointer * 32)(), ctypes.c_int()
    if not query_devices(32, devices, ctypes.byref(count)):
        return False
    for device in devices[: count.value]:
        display = platform_display(EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            egl.eglTerminate(display)
            return True
    return False


def _osmesa_works() -> bool:
    if os.environ.get("PYOPENGL_PLATFORM", "osmesa") != "osmesa":
        return False
    return ctypes.util.find_library("OSMesa") is not None
