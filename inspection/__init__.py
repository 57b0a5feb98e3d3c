"""Judge images with an exported model: the only room with a public API.

from inspection import Inspector

inspector = Inspector("model.onnx")
print(inspector.inspect("part.png").verdict)
"""
