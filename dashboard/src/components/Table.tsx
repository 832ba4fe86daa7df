import type { ComponentChildren } from 'preact';

interface TableProps {
  columns: string[];
  /** Those of the columns that hold numbers, and are aligned right. */
  numeric?: string[];
  children: ComponentChildren;
}

export function Table({ columns, numeric = [], children }: TableProps) {
  return (
    <div class="scroll" tabIndex={0}>
      <table>
        <thead>
          <tr>
            {columns.map((name) => (
              <th key={name} scope="col" class={numeric.includes(name) ? 'n' : ''}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
