//! `strandline backup`, `restore` and `rebuild`: copies of everything, and what is made of them.

use super::client::{Connection, ServerArgs, refused};
use super::{Failure, Outcome};
use crate::host::backup;
use std::io::Write as _;
use std::path::PathBuf;
use strandline_proto::Error;
use strandline_proto::v1::BackupRequest;
use strandline_storage::environment::Environment;

/// Arguments of `strandline backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Name of the backup, in the server's folder for backups (serve --backup-root).
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `strandline restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// Folder of the backup.
    backup: PathBuf,
    /// Data folder to make; it must not be there yet, or be empty.
    #[arg(long = "data", value_name = "DIR")]
    data: PathBuf,
}

/// Arguments of `strandline rebuild`.
#[derive(Debug, clap::Args)]
pub struct RebuildArgs {
    /// Data folder whose meta.sqlite is lost; no server may run on it.
    #[arg(long = "data", value_name = "DIR")]
    data: PathBuf,
}

/// Makes a backup.
pub(crate) async fn backup(arguments: BackupArgs) -> Outcome {
    let mut admin = Connection::open(&arguments.server.server).await?.admin();
    let request = BackupRequest {
        name: arguments.name,
    };
    let answer = admin.backup(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    writeln!(
        std::io::stdout(),
        "{}: {} files, {} bytes",
        answer.folder,
        answer.files,
        answer.bytes
    )?;
    Ok(())
}

/// Makes a data folder of a backup.
pub(crate) async fn restore(arguments: RestoreArgs) -> Outcome {
    let RestoreArgs { backup, data } = arguments;
    let place = data.clone();
    let restored =
        tokio::task::spawn_blocking(move || strandline_storage::backup::restore(&backup, &data));
    let manifest = restored
        .await
        .map_err(|e| Failure::Usage(Error::internal(format!("restore: {e}"))))??;
    writeln!(
        std::io::stdout(),
        "{}: {} files, {} bytes; start it with `strandline serve --data {}`",
        place.display(),
        manifest.files.len(),
        manifest.bytes(),
        place.display()
    )?;
    Ok(())
}

/// Makes a lost metastore again.
pub(crate) async fn rebuild(arguments: RebuildArgs) -> Outcome {
    let rebuilt = backup::rebuild(&arguments.data, Environment::real()).await?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "the metastore is there again, as of catalog version {}: {} segments of {} tables; streams are read on from the offsets of then",
        rebuilt.version,
        rebuilt.segments,
        rebuilt.tables.len()
    )?;
    for missing in &rebuilt.missing {
        writeln!(
            out,
            "missing: segment {missing}; queries that need it fail until its file is restored"
        )?;
    }
    for aside in &rebuilt.aside {
        writeln!(
            out,
            "pushed later, and not known to it: {}; hand it over with `strandline push`",
            aside.display()
        )?;
    }
    Ok(())
}
