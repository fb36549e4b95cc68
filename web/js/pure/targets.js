// Where a result can be sent: nodes of the canvas that take a recording.

const KINDS = {
  ACEStepLoadResult: "result",
  LoadAudio: "upload",
  ACEStepEncodeSource: "connect",
  ACEStepReferenceAudio: "connect",
};

/** [{ id, title, how }] among nodes { id, type, title }: how is result, upload or connect. */
export function targets(nodes) {
  return nodes
    .filter((node) => Object.hasOwn(KINDS, node.type))
    .map((node) => ({ id: node.id, title: node.title, type: node.type, how: KINDS[node.type] }));
}

/** Links to make from a Load Result: [output, input] names. */
export function links(type) {
  return type === "ACEStepEncodeSource" ? [["audio", "audio"], ["latent", "latent"]] : [["audio", "audio"]];
}
