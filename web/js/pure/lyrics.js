// Where in the lyrics a moment of the music is. Lines and words are sorted by their start.

/** Index of the last entry that starts at or before `time`; -1 before the first. */
export function latest(entries, time) {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].start <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** { line, word }: indices of what is being sung at `time`, -1 where nothing has begun. */
export function position(lines, time) {
  const line = latest(lines, time);
  return { line, word: line < 0 ? -1 : latest(lines[line].words, time) };
}

/** Lines to show: those that are sung, and marks such as [Chorus] only where `marks` are wanted. */
export function shown(lines, marks = true) {
  return marks ? lines : lines.filter((line) => !line.tag);
}
