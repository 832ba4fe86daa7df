import type { ComponentChildren } from 'preact';

/** A highlighted message; `role="alert"` makes screen readers read it at once. Without a message it is absent. */
export function Warning({ children, role }: { children: ComponentChildren; role?: 'alert' | 'status' }) {
  if (!children) return null;
  return (
    <p class="warn" role={role}>
      {children}
    </p>
  );
}
