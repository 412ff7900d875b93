// Prompts to begin with, in the manner of the GPT-3 paper; the texts are our own.

export const PRESETS = [
  {
    name: "A new word",
    text:
      'A "florrin" is a small cup made of birch bark. An example of a sentence that uses the word florrin is:\n' +
      "She filled two florrins at the spring and carried them back without spilling a drop.\n" +
      'To "brindle" means to walk in circles while thinking. An example of a sentence that uses the word brindle is:\n',
    settings: { temperature: 0.8, max_tokens: 48, stop: "\\n" },
  },
  {
    name: "Correct the grammar",
    text:
      "Poor English input: She go to the market on every Mondays.\n" +
      "Good English output: She goes to the market every Monday.\n" +
      "Poor English input: The informations was not helping us.\n" +
      "Good English output: The information did not help us.\n" +
      "Poor English input: He don't have no time for to read.\n" +
      "Good English output:",
    settings: { temperature: 0, max_tokens: 32, stop: "\\n" },
  },
  {
    name: "Arithmetic",
    text:
      "Q: What is 24 plus 31?\nA: 55\n\nQ: What is 67 plus 18?\nA: 85\n\nQ: What is 43 plus 29?\nA: 72\n\n" +
      "Q: What is 58 plus 16?\nA:",
    settings: { temperature: 0, max_tokens: 4, stop: "\\n" },
  },
  {
    name: "A news article",
    text:
      "Title: Harbour town votes to keep its old lighthouse\n" +
      "Subtitle: Volunteers will paint the tower and light it on winter evenings\n" +
      "Article:",
    settings: { temperature: 1, top_p: 0.9, max_tokens: 200, stop: "\\n\\nTitle:" },
  },
  {
    name: "Questions and answers",
    text:
      "Q: Which animal gives wool?\nA: The sheep.\n\nQ: What do bees make?\nA: Honey.\n\n" +
      "Q: Which season comes after winter?\nA: Spring.\n\nQ: What is ice made of?\nA:",
    settings: { temperature: 0.3, max_tokens: 16, stop: "\\n", start_text: "", restart_text: "\\n\\nQ: " },
  },
];
