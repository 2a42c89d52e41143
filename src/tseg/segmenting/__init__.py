"""What people do with a trained model: segment their images, look at the result, hand the model on."""
