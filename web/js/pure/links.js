// Whether a widget gets its value over a link.

const OWN_INPUTS = -10; // the id of what stands for a subgraph's own inputs, inside it

function fed(node, input, [owner, ...further]) {
  if (input?.link == null) return false;
  const link = node.graph?.getLink?.(input.link);
  if (link?.origin_id !== OWN_INPUTS) return true;
  return Boolean(owner) && fed(owner, owner.inputs[link.origin_slot], further);
}

/**
 * Whether a link feeds a widget. One that is shown on its subgraph is linked inside it, and counts only where something
 * feeds the subgraph there. `around`: the subgraph nodes that a node lies in, the innermost first.
 */
export function isFed(node, name, around = []) {
  return (node.inputs ?? []).some((input) => input.widget?.name === name && fed(node, input, around));
}
