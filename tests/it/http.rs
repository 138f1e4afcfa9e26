use crate::support::*;

#[tokio::test]
async fn smoke() {
    let place = Place::new().await;
    let mut ticketd = place.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let id = place.accepted(&mut client, &[], EXAMPLE).await;
    println!("{:?}", place.row(id).await);
    ticketd.drained().await;
}
