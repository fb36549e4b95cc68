// Elements whose text is always text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `properties` are set on it, except `on` (listeners by event), `attributes`, and `data` (data-*).
 */
export function el(tag, properties = {}, ...children) {
  const { on = {}, attributes = {}, data = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A button with an icon of ComfyUI's set, a label, or both. */
export function button(label, listener, { icon = "", title = "", action = "", disabled = false, quiet = false } = {}) {
  const inside = [];
  if (icon) inside.push(el("i", { className: icon, attributes: { "aria-hidden": "true" } }));
  if (label) inside.push(el("span", { textContent: label }));
  return el(
    "button",
    {
      type: "button",
      className: `acestep-button${quiet ? " acestep-quiet" : ""}`,
      title: title || label,
      disabled,
      attributes: { "aria-label": title || label },
      data: action ? { action } : {},
      on: { click: listener },
    },
    ...inside,
  );
}

/** Keep keys, wheel and pointer to an element: the canvas below must not take them for its own. */
export function keepEvents(element) {
  for (const name of ["pointerdown", "pointerup", "dblclick", "contextmenu"]) {
    element.addEventListener(name, (event) => event.stopPropagation());
  }
  element.addEventListener(
    "wheel",
    (event) => {
      const area = event.target.closest?.(".acestep-scroll");
      if (area && area.scrollHeight > area.clientHeight) event.stopPropagation();
    },
    { passive: true },
  );
  return element;
}

/** Put a text on the clipboard, also where a page from another machine without https has none of its own. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copySelected(text);
  }
}

function copySelected(text) {
  const focused = document.activeElement;
  const area = el("textarea", { value: text, readOnly: true, className: "acestep-copied" });
  document.body.append(area);
  try {
    area.select();
    if (!document.execCommand("copy")) throw new Error();
  } finally {
    area.remove();
    focused?.focus({ preventScroll: true });
  }
}
