// Samples from CSV text.
import { info } from "./student.js";

const SHOWN_PROBLEMS = 5;

/** Rows of numbers from CSV text; a header chooses columns by name, else the first ones are taken. */
export function parse(text) {
  const lines = text.split(/\r?\n/).map((line, n) => [n + 1, line.split(/[,;\t]/).map((cell) => cell.trim())]);
  const filled = lines.filter(([, cells]) => cells.some((cell) => cell !== ""));
  if (!filled.length) throw new Error("There are no samples: paste some, open a file, or take the example.");
  const isHeader = filled[0][1].some((cell) => cell !== "" && Number.isNaN(Number(cell)) && !/^nan$/i.test(cell));
  const header = isHeader ? filled.shift()[1] : info.channels;
  const columns = info.channels.map((name) => header.indexOf(name));
  const missing = info.channels.filter((_, n) => columns[n] < 0);
  if (missing.length) throw new Error(`No column ${missing.join(", ")}; the first line names ${header.join(", ")}.`);
  const problems = [];
  const rows = filled.map(([line, cells]) =>
    columns.map((column, n) => {
      const value = cells[column] === "" ? NaN : Number(cells[column]);
      if (!Number.isFinite(value))
        problems.push(`line ${line}, ${info.channels[n]}: ${cells[column] || "nothing"}, expected a number`);
      return value;
    }),
  );
  if (problems.length > SHOWN_PROBLEMS)
    problems.splice(SHOWN_PROBLEMS, Infinity, `and ${problems.length - SHOWN_PROBLEMS} more`);
  if (problems.length) throw new Error(problems.join("\n"));
  return rows;
}
