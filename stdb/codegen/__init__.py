"""Code generation: bindings that client SDKs need, from what a module declares.

Each generator is a pure function from a `ModuleDef` to the files of the bindings: {relative path: text}.
"""
