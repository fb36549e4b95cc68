// The canvas side of ACE-Step Graph: players, trainings and tables on nodes, dice on widgets, and the results panel.

import { app } from "../../../scripts/app.js";
import { addElement, freshSeed, freshSeeds, nodeOfLocator, writeAll } from "./canvas.js";
import { addTable, EDITOR, showOutput as showTable } from "./dataset.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { readCards } from "./pure/cards.js";
import { descriptionValues, songValues } from "./pure/settings.js";
import * as server from "./server.js";
import { addTraining, listen, showOutput as showTraining, TRAINER } from "./training.js";
import { loadWords, t } from "./words.js";

const PLAYERS = ["ACEStepSaveResult", "ACEStepSaveAudio", "ACEStepPreviewAudio"];
const WIDTH = 300;
const LYRICS = "ACEStep.Lyrics";
const LIMIT = "ACEStep.Batches";
const TAB = "acestep.results";

const setting = (id, fallback) => app.extensionManager?.setting?.get(id) ?? fallback;
const lyrics = () => setting(LYRICS, "words");
const pick = (entries) => entries[Math.floor(Math.random() * entries.length)];

const DICE = {
  ACEStepSong: ["dice.song", async (node) => writeAll(node, songValues(pick((await server.examples()).songs)))],
  ACEStepCreateSample: [
    "dice.description",
    async (node) => writeAll(node, descriptionValues(pick((await server.examples()).descriptions))),
  ],
  ACEStepSampler: ["dice.seed", async (node) => freshSeed(node)],
};

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./acestep.css", import.meta.url).href;
  document.head.append(link);
}

/**
 * A player at the end of a node. It bears the name of ComfyUI's own player, which looks for one on every node that
 * reports sound and stops with an error where there is none.
 */
function addPlayer(node) {
  const player = new Player({ lyrics });
  addElement(node, "audioUI", "ACESTEP_PLAYER", player.element, 190);
  node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]); // of new nodes; a workflow brings its own sizes
  node.acestepPlayer = player;
  const before = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    before?.call(this, output, ...rest);
    if (output?.acestep) player.show(readCards(output.acestep));
  };
  const removed = node.onRemoved;
  node.onRemoved = function (...rest) {
    player.stop();
    removed?.apply(this, rest);
  };
}

function addDice(node, [label, roll]) {
  const roller = async () => {
    try {
      await roll(node);
    } catch (error) {
      app.extensionManager.toast.add({ severity: "error", summary: t("dice.failed"), detail: error.message, life: 8000 });
    }
  };
  const widget = node.addWidget("button", label, null, roller, { serialize: false });
  widget.serialize = false;
  widget.label = t(label);
}

let panel = null;

app.registerExtension({
  name: "ACEStep.Graph",
  settings: [
    {
      id: LYRICS,
      name: "Lyrics in players",
      type: "combo",
      options: ["words", "lines", "off"],
      defaultValue: "words",
      category: ["ACE-Step", "Results", "Lyrics"],
      tooltip: "Whether synced lyrics are followed word by word, line by line, or not shown.",
      onChange: Player.redrawAll,
    },
    {
      id: LIMIT,
      name: "Batches listed at once",
      type: "slider",
      attrs: { min: 5, max: 100, step: 5 },
      defaultValue: 30,
      category: ["ACE-Step", "Results", "Batches"],
      tooltip: "How many saved batches the results panel reads at once.",
    },
  ],
  commands: [
    {
      id: "ACEStep.ToggleResults",
      label: "Show or hide the ACE-Step results",
      icon: "pi pi-headphones",
      function: () => app.extensionManager.command.execute(`Workspace.ToggleSidebarTab.${TAB}`),
    },
    {
      id: "ACEStep.RandomSeed",
      label: "New random seed in every ACE-Step sampler",
      icon: "pi pi-refresh",
      function: freshSeeds,
    },
  ],

  async init() {
    addStyle();
    await loadWords();
  },

  nodeCreated(node) {
    if (PLAYERS.includes(node.comfyClass)) addPlayer(node);
    if (node.comfyClass === TRAINER) addTraining(node);
    if (node.comfyClass === EDITOR) addTable(node);
    if (DICE[node.comfyClass]) addDice(node, DICE[node.comfyClass]);
  },

  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs ?? {})) {
      if (output?.acestep) nodeOfLocator(locator)?.acestepPlayer?.show(readCards(output.acestep));
      if (output?.acestep_training) showTraining(nodeOfLocator(locator), output);
      if (output?.acestep_dataset) showTable(nodeOfLocator(locator), output);
    }
  },

  setup() {
    listen();
    app.extensionManager.registerSidebarTab({
      id: TAB,
      icon: "pi pi-headphones",
      title: t("panel.title"),
      tooltip: t("panel.tooltip"),
      type: "custom",
      render: (container) => {
        panel ??= new Panel({ lyrics, limit: () => Number(setting(LIMIT, 30)) || 30 });
        panel.render(container);
      },
    });
  },
});
