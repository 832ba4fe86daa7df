import { download, errorMessage } from '../../../../api/client';

async function saveKeplerMap(): Promise<void> {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await download('/api/export/kepler'));
  link.download = 'city.kepler.json';
  link.click();
  URL.revokeObjectURL(link.href);
}

export function ExportSection({ onError }: { onError: (message: string) => void }) {
  return (
    <>
      <h2>Export</h2>
      <button
        type="button"
        onClick={() => saveKeplerMap().catch((error: unknown) => onError(errorMessage(error)))}
      >
        Open in Kepler.gl
      </button>
      <p class="note">
        Saves data and map settings. Drop the file on <a href="https://kepler.gl/demo">kepler.gl</a>.
      </p>
    </>
  );
}
