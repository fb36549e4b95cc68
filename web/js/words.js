// The texts of players and panel in the user's language, from locales/<language>/main.json.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const KEY = "acestepGraph";
let texts = {};

/** Fetch the texts once. Without them every text is its own key, which still tells what it is. */
export async function loadWords() {
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    const short = String(language).split("-")[0];
    texts = { ...all.en?.[KEY], ...all[short]?.[KEY], ...all[language]?.[KEY] };
  } catch (error) {
    console.warn("ACE-Step Graph: no texts could be loaded", error);
  }
}

/** The text `key`, with {names} replaced. */
export function t(key, values = {}) {
  const text = typeof texts[key] === "string" ? texts[key] : key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
