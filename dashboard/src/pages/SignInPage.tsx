import { apiKey } from '../api/client';

/** Asks for an API key, and calls `onKey` when one was entered. */
export function SignInPage({ onKey }: { onKey: () => void }) {
  return (
    <main id="main" class="page">
      <h1>An API key is required</h1>
      <p>
        Only users with a key can access this server. <code>city keys add NAME --role operator</code> creates a key.
        This tab keeps the key until it is closed.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          apiKey.set(String(new FormData(event.currentTarget).get('key')).trim());
          onKey();
        }}
      >
        <label>
          Key <input name="key" type="password" autoComplete="off" required />
        </label>
        <button type="submit">Sign in</button>
      </form>
    </main>
  );
}
