"""The names that React Flow keeps in nodes and edges for drawing; they mean nothing to a run.

From the types `Node` and `Edge` of @xyflow/react 12 and their predecessors of version 11.
"""

_node = """
    ariaLabel ariaRole className connectable data deletable domAttributes dragHandle draggable
    dragging expandParent extent focusable handles height hidden initialHeight initialWidth label
    measured origin parentNode position positionAbsolute resizing selectable selected
    sourcePosition style targetPosition width zIndex
"""
_edge = """
    animated ariaLabel ariaRole className data deletable domAttributes focusable hidden
    interactionWidth label labelBgBorderRadius labelBgPadding labelBgStyle labelShowBg labelStyle
    markerEnd markerStart pathOptions reconnectable selectable selected sourceNode sourceX sourceY
    style targetNode targetX targetY type updatable zIndex
"""

NODE_FIELDS = frozenset(_node.split())
EDGE_FIELDS = frozenset(_edge.split())
"""Without `id`, `source`, `target` and the handles, which do mean something."""
